"""Whatever a resource names must exist: configuration, secrets and their keys, accounts, volumes, back ends."""

import base64
from collections.abc import Iterator
from typing import Final

from k8s_check.model import Container, Json, Manifests, Pod, Resource

KINDS: Final = {
    "configMap": "ConfigMap",
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "secret": "Secret",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
}


def configuration(manifests: Manifests) -> Iterator[str]:
    """ConfigMaps and Secrets that pods read are among the resources or promised, with the keys that are asked for."""
    for pod in manifests.pods:
        for kind, reference, keys in _references(pod):
            name = reference.get("name") or reference.get("secretName")
            found = manifests.find(kind, pod.namespace, str(name))
            if found is None and not reference.get("optional"):
                yield f"{pod.owner}: there is no {kind} {name}"
            elif found is not None and not reference.get("optional"):
                missing = [key for key in keys if key not in keys_of(found)]
                yield from (f"{pod.owner}: {kind} {name} has no key {key}" for key in missing)


def accounts(manifests: Manifests) -> Iterator[str]:
    for pod in manifests.pods:
        name = pod.spec.get("serviceAccountName", "default")
        if name == "default":
            yield f"{pod.owner}: runs as the default ServiceAccount"
        elif manifests.find("ServiceAccount", pod.namespace, name) is None:
            yield f"{pod.owner}: there is no ServiceAccount {name}"


def volumes(manifests: Manifests) -> Iterator[str]:
    """Each mount has its volume, each volume its mount, and files named in the environment lie in a mounted one."""
    for pod in manifests.pods:
        claims = pod.owner.spec.get("volumeClaimTemplates", ())
        declared = {volume["name"] for volume in pod.spec.get("volumes", ())} | {c["metadata"]["name"] for c in claims}
        mounted = {mount["name"] for c in pod.containers for mount in c.data.get("volumeMounts", ())}
        yield from (f"{pod.owner}: volumeMount {name} has no volume" for name in sorted(mounted - declared))
        yield from (f"{pod.owner}: volume {name} is never mounted" for name in sorted(declared - mounted))
        for container in pod.containers:
            yield from _files(manifests, pod, container)


def items(manifests: Manifests) -> Iterator[str]:
    """A mounted Secret names its keys: what someone adds to it later reaches no pod."""
    for pod in manifests.pods:
        for volume in pod.spec.get("volumes", ()):
            if "secret" in volume and not volume["secret"].get("items"):
                yield f"{pod.owner}: volume {volume['name']} mounts every key of its Secret"


def backends(manifests: Manifests) -> Iterator[str]:
    """An Ingress leads to a port that its Service has."""
    for ingress in manifests.of("Ingress"):
        for backend in _backends(ingress.spec):
            service = manifests.find("Service", ingress.namespace, backend["name"])
            if service is None:
                yield f"{ingress}: there is no Service {backend['name']}"
                continue
            wanted = backend["port"].get("name", backend["port"].get("number"))
            if not any(wanted in (port.get("name"), port["port"]) for port in service.spec["ports"]):
                yield f"{ingress}: Service {backend['name']} has no port {wanted}"


def certificates(manifests: Manifests) -> Iterator[str]:
    """Every host of an Ingress has a certificate, in a Secret for TLS that is promised or that cert-manager makes."""
    for ingress in manifests.of("Ingress"):
        secrets = [(tls.get("hosts", ()), tls.get("secretName", "")) for tls in ingress.spec.get("tls", ())]
        given = {host: name for hosts, name in secrets for host in hosts}
        for rule in ingress.spec.get("rules", ()):
            if rule.get("host") not in given:
                yield f"{ingress}: host {rule.get('host')} has no certificate"
        for name in sorted(set(given.values())) if not _is_issued(ingress) else ():
            secret = manifests.find("Secret", ingress.namespace, name)
            if secret is None:
                yield f"{ingress}: there is no Secret {name}, and no issuer that makes it"
            elif secret.data.get("type") != "kubernetes.io/tls" or not {"tls.crt", "tls.key"} <= keys_of(secret):
                yield f"{ingress}: Secret {name} is no certificate with its key"


def keys_of(resource: Resource) -> set[str]:
    """Of a ConfigMap or a Secret."""
    return {*(resource.data.get("data") or {}), *(resource.data.get("stringData") or {})}


def file_content(manifests: Manifests, pod: Pod, container: Container, path: str) -> str | None:
    """What a mounted Secret or ConfigMap has at a path; None when it has no such file."""
    folder, _, file = path.rpartition("/")
    source = _volume_source(pod, container, folder)
    if source is None:
        return None
    kind, reference = source
    found = manifests.find(kind, pod.namespace, str(reference.get("name") or reference.get("secretName")))
    keys = {item["path"]: item["key"] for item in reference.get("items", ())} or {file: file}
    return _value(found, keys[file]) if found and file in keys else None


def _is_issued(ingress: Resource) -> bool:
    annotations = ingress.data["metadata"].get("annotations") or {}
    return any(f"cert-manager.io/{kind}" in annotations for kind in ("issuer", "cluster-issuer"))


def _value(resource: Resource, key: str) -> str | None:
    plain: Json = resource.data.get("stringData") or {}
    data: Json = resource.data.get("data") or {}
    if key in plain or (resource.kind == "ConfigMap" and key in data):
        return str(plain.get(key, data.get(key)))
    return base64.b64decode(data[key]).decode() if key in data else None


def _backends(spec: Json) -> Iterator[Json]:
    if "defaultBackend" in spec:
        yield spec["defaultBackend"]["service"]
    for rule in spec.get("rules", ()):
        for path in rule["http"]["paths"]:
            yield path["backend"]["service"]


def _references(pod: Pod) -> Iterator[tuple[str, Json, list[str]]]:
    """Kind, reference, and the keys that must be there, of every ConfigMap and Secret."""
    places: list[Json] = list(pod.spec.get("volumes", ()))
    for container in pod.containers:
        places += container.data.get("envFrom", ())
        places += [variable.get("valueFrom", {}) for variable in container.data.get("env", ())]
    for place in places:
        for field, reference in place.items():
            if kind := KINDS.get(field):
                keys = [item["key"] for item in reference.get("items", ())]
                yield kind, reference, [reference["key"]] if "key" in reference else keys


def _files(manifests: Manifests, pod: Pod, container: Container) -> Iterator[str]:
    folders = {mount["mountPath"]: mount["name"] for mount in container.data.get("volumeMounts", ())}
    for name, path in container.environment.items():
        if not name.endswith("_FILE"):
            continue
        folder = path.rpartition("/")[0]
        if folder not in folders:
            yield f"{pod.owner}: {name} is {path}, where nothing is mounted"
        elif file_content(manifests, pod, container, path) is None:
            yield f"{pod.owner}: {name} is {path}, which the volume {folders[folder]} does not hold"


def _volume_source(pod: Pod, container: Container, folder: str) -> tuple[str, Json] | None:
    """Kind and reference of the Secret or ConfigMap that is mounted at a folder."""
    names = [mount["name"] for mount in container.data.get("volumeMounts", ()) if mount["mountPath"] == folder]
    for volume in pod.spec.get("volumes", ()):
        for field in ("secret", "configMap"):
            if volume["name"] in names and field in volume:
                return KINDS[field], volume[field]
    return None
