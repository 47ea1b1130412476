"""Reading, checking, splitting and writing retrieval data, and the demo's corpus. Not for models: nothing here knows a tokenizer or torch."""
