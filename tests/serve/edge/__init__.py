"""What a client may send or leave out, without harm to anybody else."""
