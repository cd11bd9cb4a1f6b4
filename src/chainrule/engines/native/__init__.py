"""The native engine: graphs as machine code, written in Python through LLVM."""
