"""Fine-tuning on labelled examples, with distillation and augmentation."""
