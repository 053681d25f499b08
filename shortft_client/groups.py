"""The methods that both clients have, by resource: one line each."""

from __future__ import annotations

from shortft_client.calls import catalogs, jobs, keys, pictures
from shortft_client.endpoint import Endpoint, ListEndpoint


class JobEndpoints:
    """Jobs, and what they leave."""

    create = Endpoint(jobs.create)
    validate = Endpoint(jobs.validate)
    retrieve = Endpoint(jobs.retrieve)
    list = ListEndpoint(jobs.every)
    update = Endpoint(jobs.update)
    cancel = Endpoint(jobs.cancel)
    pause = Endpoint(jobs.pause)
    resume = Endpoint(jobs.resume)
    retry = Endpoint(jobs.retry)
    rerun = Endpoint(jobs.rerun)
    delete = Endpoint(jobs.remove)
    events = Endpoint(jobs.events)
    logs = Endpoint(jobs.logs)
    metrics = Endpoint(jobs.metrics)
    samples = ListEndpoint(jobs.samples)
    sample_content = Endpoint(jobs.sample_content)
    checkpoints = Endpoint(jobs.checkpoints)
    artifacts = Endpoint(jobs.artifacts)
    report = Endpoint(jobs.report)


class GenerationEndpoints:
    """Requests for images, made or running."""

    create = Endpoint(pictures.generate)
    retrieve = Endpoint(pictures.retrieve)
    list = ListEndpoint(pictures.every)
    cancel = Endpoint(pictures.cancel)
    delete = Endpoint(pictures.remove)


class ImageEndpoints:
    """Pictures."""

    read = Endpoint(pictures.image)


class RewardEndpoints:
    """Rewards, and what they say of pictures."""

    list = ListEndpoint(catalogs.rewards)
    score = Endpoint(pictures.score_files)
    score_images = Endpoint(pictures.score_images)


class PromptSetEndpoints:
    """Prompt sets."""

    list = ListEndpoint(catalogs.prompt_sets)
    retrieve = Endpoint(catalogs.prompt_set)
    prompts = Endpoint(catalogs.prompts)
    create = Endpoint(catalogs.create_prompt_set)
    upload = Endpoint(catalogs.upload_prompt_set)
    delete = Endpoint(catalogs.delete_prompt_set)


class AdapterEndpoints:
    """Adapters."""

    list = ListEndpoint(catalogs.adapters)
    retrieve = Endpoint(catalogs.adapter)


class ApiKeyEndpoints:
    """API keys of the project, for a key with the scope `admin`."""

    list = ListEndpoint(keys.every)
    create = Endpoint(keys.create)
    revoke = Endpoint(keys.revoke)


class ServiceEndpoints:
    """Catalogs, and the service itself."""

    models = ListEndpoint(catalogs.models)
    methods = ListEndpoint(catalogs.methods)
    workers = ListEndpoint(catalogs.workers)
    queue = Endpoint(catalogs.queue)
    ready = Endpoint(catalogs.ready)
    version = Endpoint(catalogs.version)
