"""Reading, checking, splitting and writing retrieval data, and the demo's corpus. Nothing here knows a tokenizer or torch."""
