"""Diffusion processes: noise schedules, forward and reverse paths, guidance, samplers."""
