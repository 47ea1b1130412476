"""Fine-tuning: the loss, the loop, its checkpoints, and the merge with the base. Nothing here is imported by ``import nearfield``."""
