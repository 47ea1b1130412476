"""From a checkpoint to a bundle: ONNX graphs, quantization, parity figures, and the folder that holds them."""
