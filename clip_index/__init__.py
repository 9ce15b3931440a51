"""The engine that both sides share: encoder, images, segments, manifests, writer, reader.

Knows neither Kafka nor HTTP; importing it does not import torch.
"""
