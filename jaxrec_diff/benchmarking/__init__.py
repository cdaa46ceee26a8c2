"""What a diffusion recommender costs: timed, counted, and compared with what else there is."""
