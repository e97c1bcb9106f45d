"""From settings to finished runs: what is asked for, its parts, its training, its measurements, where it is kept."""
