"""What all operators share and no backend owns: errors, checks, activations on the CPU, merging of parts, dispatch."""
