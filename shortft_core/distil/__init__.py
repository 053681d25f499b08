"""Data-free targeted jump distillation: the few jumps that a chain needs, learned as one LoRA."""
