"""Several servers on one machine: `--replicas N` starts them, watches them, and puts nginx before them."""
