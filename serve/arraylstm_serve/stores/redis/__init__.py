"""The store in Redis or Valkey, alone, with Sentinel, or a cluster."""
