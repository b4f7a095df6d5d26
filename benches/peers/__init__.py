"""pipeline beside its peers: `make bench-peers`. `__main__.py` says what each module is for."""
