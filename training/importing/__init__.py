"""The stages that make a bundle of an ONNX file from somewhere else; `training.onnx_import` runs them."""
