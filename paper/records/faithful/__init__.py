"""The recorded arms of faithfulness, their pictures, and the picture of `fstsim faithful`."""
