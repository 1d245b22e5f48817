"""Files that containers read come from a mounted Secret or ConfigMap."""

import base64
from collections.abc import Iterator
from typing import Final

from k8s_check.model import Container, Json, Manifests, Pod, Resource

KINDS: Final = {"configMap": "ConfigMap", "secret": "Secret"}


def files(manifests: Manifests) -> Iterator[str]:
    """A file that a *_FILE variable names is in a mounted volume."""
    for pod in manifests.pods:
        for container in pod.containers:
            for name, path in container.environment.items():
                if name.endswith("_FILE") and path and file_content(manifests, pod, container, path) is None:
                    yield f"{pod.owner}: {name} is {path}, which no mounted volume contains"


def secret_items(manifests: Manifests) -> Iterator[str]:
    """A mounted Secret lists its keys, so that a key added later reaches no pod."""
    for pod in manifests.pods:
        for volume in pod.spec.get("volumes", ()):
            if "secret" in volume and not volume["secret"].get("items"):
                yield f"{pod.owner}: volume {volume['name']} mounts every key of its Secret"


def file_content(manifests: Manifests, pod: Pod, container: Container, path: str) -> str | None:
    """Return what a mounted Secret or ConfigMap contains at a path, or None."""
    folder, _, file = path.rpartition("/")
    source = _volume_source(pod, container, folder)
    if source is None:
        return None
    kind, reference = source
    found = manifests.find(kind, pod.namespace, str(reference.get("name") or reference.get("secretName")))
    keys = {item["path"]: item["key"] for item in reference.get("items", ())} or {file: file}
    return _value(found, keys[file]) if found and file in keys else None


def _value(resource: Resource, key: str) -> str | None:
    plain: Json = resource.data.get("stringData") or {}
    data: Json = resource.data.get("data") or {}
    if key in plain or (resource.kind == "ConfigMap" and key in data):
        return str(plain.get(key, data.get(key)))
    return base64.b64decode(data[key]).decode() if key in data else None


def _volume_source(pod: Pod, container: Container, folder: str) -> tuple[str, Json] | None:
    """Return kind and reference of the Secret or ConfigMap mounted at a folder."""
    names = [mount["name"] for mount in container.data.get("volumeMounts", ()) if mount["mountPath"] == folder]
    for volume in pod.spec.get("volumes", ()):
        for field in ("secret", "configMap"):
            if volume["name"] in names and field in volume:
                return KINDS[field], volume[field]
    return None
