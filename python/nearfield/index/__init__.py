"""Exact and approximate indexes over the native engine. An index knows vectors and ids; what the ids name is the caller's business."""
