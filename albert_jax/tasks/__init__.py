"""Fine-tuning tasks: file formats, features, heads, metrics."""
