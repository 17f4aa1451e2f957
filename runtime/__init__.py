"""The device's part: a model file read, checked, stepped, sampled and scored, with numpy and one TFLite interpreter."""
