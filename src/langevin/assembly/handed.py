"""What the program hands to the constructors of parts.

A constructor that has a parameter of one of these names is given the value, where there is one; no config may set it.
All other parameters are the config's.
"""

HANDED = {
    # of the data and of what is diffused
    "spec": "the `DataSpec`: to a codec of the data, to thresholding of what is diffused",
    "in_channels": "the channels of what is diffused",
    "out_channels": "the channels of a denoiser's output",
    "image_size": "the side of square images, or of their latents",
    "num_classes": "the number of classes",
    "vocabulary": "the most frequent words of the captions",
    # parts that are made of other parts
    "condition": "what builds the conditions' embedding, called with `dim=`; None for an unconditional model",
    "text": "a text encoder, such as text=learned",
    "dim": "the size of the vectors that the network takes from a condition",
    "schedule": "the noise schedule",
    "parameterization": "the meaning of a network's output",
    "variance": "the variance of a reverse step",
    "time_sampler": "the distribution of training times",
    "weighting": "the weight of the loss at each time",
    "perceptual": "the distance of features, or None",
    "discriminator": "the discriminator, or None",
    "timestep_spacing": "the times that a sampler walks through",
    "thresholding": "what keeps predicted samples in range, or None",
    "network": "a network: that of which EMA weights are kept, that of a codec, or that which is trained",
    "params": "the weights to optimize",
    "fused": "whether the optimizer may be one kernel over all weights",
    "source": "the data source",
    "hints": "whether hints that come with the samples are read",
    "captions": "what writes the samples' captions, or None",
    "operator": "what is measured of samples, by operators=[NAMES] in their order",
    # other models: called with the option that names a run, and its value
    "load_classifier": "loads a classifier of noisy samples",
    "load_denoiser": "loads a denoiser",
    "load_autoencoder": "loads the weights of an autoencoder",
    "load_clean_classifier": "loads a classifier of samples without noise",
    "load_dinov2": "loads DINOv2's patch tokens, by the name of a model",
    "teacher": "the model that an auxiliary compares with, as its `read` gave it",
    # of the run
    "batch_size": "samples per optimizer step",
    "accumulate": "micro-batches per optimizer step",
    "seed": "the run's seed",
    "first": "how many of the samples are trained on, or None for all",
    "run_dir": "the run's folder",
    "run_name": "the run's name",
    "record": "what a checkpoint stores beside the weights",
    "generator": "the `Pipeline` that makes samples, or reconstructions; None where a run makes neither",
    "sampling": "the `SamplePipeline`; None where a run does not sample",
    "evaluation": "the metrics, prepared",
    "callbacks": "all callbacks",
    "loggers": "all loggers",
}
"""By the parameters' names: what each is, to follow "needs"."""
