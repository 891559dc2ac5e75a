"""What a pretrained encoder is tuned to and measured on: formats, features, heads, metrics."""
