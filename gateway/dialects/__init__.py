"""Wire languages at the edge: bytes in, requests out; events in, bytes out. No I/O."""
