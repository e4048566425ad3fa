"""Data sets out of a WORK folder: nnU-Net, VoxTell, MONAI, Hugging Face; splits, duplicates, the data card."""
