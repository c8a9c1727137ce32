"""Checks what is in deploy/: the Helm chart as it renders with several values, and the compose file.

Manifests are validated with Kubernetes' own schemas, values with the chart's; the settings that the chart
writes are read by the binary, and every container is as closed as it is meant to be.
"""
import copy
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import jsonschema
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "deploy/helm/tidings"
VERSIONS = ["1.25", "1.31"]
RENDER, BINARY = sys.argv[1], sys.argv[2]

SHARED = {
    "replicas": 3,
    "database": {"existingSecret": "database"},
    "keyring": {"existingSecret": "keyring"},
    "existingSecret": "secrets",
}
GOOD = {
    "as it is": {},
    "replicas": SHARED | {"networkPolicy": {"enabled": True, "fromNamespaces": ["apps"]}},
    "replicas that share their mirrors": SHARED | {"mirrors": {"existingClaim": "mirrors"}},
    "replicas that share their artifacts": SHARED | {"artifacts": {"existingClaim": "artifacts"}},
    "replicas with artifacts in a bucket": SHARED | {
        "artifacts": {"existingSecret": "bucket"},
        "settings": {"artifacts": {"s3_region": "eu-central-1", "s3_prefix": "tidings/"}},
    },
    "replicas with addresses of IPv6": SHARED | {"ipv6": True},
    "replicas that keep nothing": SHARED | {"replicas": 50, "persistence": {"enabled": False}},
    "one on PostgreSQL": SHARED | {"replicas": 1},
    "everything": {
        "image": {"tag": "1.2.3"},
        "imagePullSecrets": [{"name": "pull"}],
        "existingSecret": "secrets",
        "hooks": {"enabled": True},
        "settings": {
            "git": {"poll_min": "10s", "free_min_bytes": 1},
            "egress": {"allow": ["10.0.0.0/8", "git.example.org"], "allow_http": True},
        },
        "persistence": {"storageClass": "fast", "size": "5Gi"},
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls", "annotations": {"a": "b"}},
        "networkPolicy": {"enabled": True, "fromNamespaces": ["apps", "ingress"]},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"x": "y"},
    },
    "a claim": {"persistence": {"existingClaim": "mine"}},
    "nothing kept": {"persistence": {"enabled": False}},
}
BAD = [
    {"replicas": 3},
    *({name: value for name, value in SHARED.items() if name != missing} for missing in SHARED if missing != "replicas"),
    SHARED | {"database": {"existingSecret": ""}},
    SHARED | {"keyring": {"existingSecret": ""}},
    SHARED | {"existingSecret": ""},
    SHARED | {"persistence": {"existingClaim": "mine"}},
    SHARED | {"replicas": 0},
    SHARED | {"replicas": 51},
    SHARED | {"replicas": "3"},
    {"settings": {"server": {"replica_url": "http://a"}}},
    {"settings": {"database": {"url": "postgres://a/b"}}},
    {"settings": {"keyring_file": "/a"}},
    {"settings": {"git": {"mirrors_dir": "/a"}}},
    {"mirrors": {"claim": "a"}},
    {"artifacts": {"existingClaim": "a", "existingSecret": "b"}},
    {"settings": {"artifacts": {"dir": "/a"}}},
    {"settings": {"artifacts": {"s3_secret_key": "secret"}}},
    {"ipv6": "yes"},
    {"image": {"repository": ""}},
    {"image": {"pullPolicy": "Sometimes"}},
    {"persistence": {"size": "much"}},
    {"service": {"port": 0}},
    {"settings": {"server": {"admin_token": "secret"}}},
    {"settings": {"server": {"listen": "0.0.0.0:1"}}},
    {"settings": {"hooks": {"secret": ["secret"]}}},
    {"settings": {"git": {"poll_min": {"a": 1}}}},
]


def fail(text):
    sys.exit(f"chart: {text}")


def merged(defaults, given):
    result = copy.deepcopy(defaults)
    for key, value in given.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def rendered(values):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(values, file)
        file.flush()
        done = subprocess.run([RENDER, str(CHART), file.name], capture_output=True, text=True)
    if done.returncode != 0:
        fail(done.stderr)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def check_manifests(name, values, documents):
    kinds = {document["kind"]: document for document in documents}
    for document in documents:
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
    pod = kinds["StatefulSet"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    closed = {
        "runAsNonRoot": pod["securityContext"]["runAsNonRoot"] is True,
        "a numeric user": pod["securityContext"]["runAsUser"] == 65532,
        "seccomp": pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"},
        "a read-only root": container["securityContext"]["readOnlyRootFilesystem"] is True,
        "no escalation": container["securityContext"]["allowPrivilegeEscalation"] is False,
        "no capabilities": container["securityContext"]["capabilities"] == {"drop": ["ALL"]},
        "no token of the cluster": pod["automountServiceAccountToken"] is False,
        "as many replicas": kinds["StatefulSet"]["spec"]["replicas"] == values.get("replicas", 1),
        "the same labels": kinds["Service"]["spec"]["selector"].items()
        <= kinds["StatefulSet"]["spec"]["template"]["metadata"]["labels"].items(),
    }
    for what, is_so in closed.items():
        if not is_so:
            fail(f"{name}: not {what}")
    environment = {entry["name"]: entry for entry in container["env"]}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    if not any(environment["TIDINGS__DATA_DIR"]["value"].startswith(mount) for mount in mounts):
        fail(f"{name}: the data directory lies on no volume")
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in kinds["StatefulSet"]["spec"].get("volumeClaimTemplates", [])}
    if {mount["name"] for mount in container["volumeMounts"]} != volumes:
        fail(f"{name}: mounts and volumes differ: {volumes}")
    if ("TIDINGS__HOOKS__SECRET" in environment) != bool(values.get("hooks", {}).get("enabled")):
        fail(f"{name}: the secret of hooks is or is not there")
    check_replicas(name, values, kinds, environment, mounts)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "tidings.toml")
        file.write_text(kinds["ConfigMap"]["data"]["tidings.toml"])
        given = {entry: value["value"] for entry, value in environment.items() if "value" in value}
        address = "fd00::5" if values.get("ipv6") else "10.0.0.5"
        given = {entry: value.replace("$(POD_IP)", address) for entry, value in given.items()}
        if "TIDINGS__DATABASE__URL" in environment:
            given["TIDINGS__DATABASE__URL"] = f"sqlite://{folder}/stands-for-the-secret.db"
        checked = subprocess.run(
            [BINARY, "check-config", "--json", "--config", str(file)],
            env=given | {"PATH": os.environ["PATH"], "TIDINGS__DATA_DIR": f"{folder}/data"},
            capture_output=True,
            text=True,
        )
    if checked.returncode != 0:
        fail(f"{name}: the binary refuses the settings: {checked.stderr}")
    in_effect = json.loads(checked.stdout)
    for section, keys in values.get("settings", {}).items():
        for key, value in keys.items():
            if in_effect[section][key] != value:
                fail(f"{name}: {section}.{key} is {in_effect[section][key]}, not {value}")


def check_replicas(name, values, kinds, environment, mounts):
    """What several need, and that one has none of it."""
    many = values.get("replicas", 1) > 1
    spec = kinds["StatefulSet"]["spec"]
    selector = spec["selector"]["matchLabels"]
    pod = spec["template"]["spec"]
    order = [entry["name"] for entry in pod["containers"][0]["env"]]
    budget = kinds.get("PodDisruptionBudget", {}).get("spec")
    spread = [entry["labelSelector"]["matchLabels"] for entry in pod.get("topologySpreadConstraints", [])]
    expected = {
        "an address that others reach": ("TIDINGS__SERVER__REPLICA_URL" in environment) == many,
        "a disruption budget of one": budget == ({"maxUnavailable": 1, "selector": {"matchLabels": selector}} if many else None),
        "a spread over nodes": spread == ([selector] if many else []),
        "no order of starts": spec["podManagementPolicy"] == "Parallel",
    }
    if many:
        expected["its address before what uses it"] = order.index("POD_IP") < order.index("TIDINGS__SERVER__REPLICA_URL")
        expected["the admin token of all"] = "valueFrom" in environment["TIDINGS__SERVER__ADMIN_TOKEN"]
    for secret, variable in [("database", "TIDINGS__DATABASE__URL"), ("keyring", "TIDINGS__KEYRING_FILE")]:
        given = bool(values.get(secret, {}).get("existingSecret"))
        expected[f"the {secret} that was given"] = (variable in environment) == given
        if given and secret == "keyring":
            path = pathlib.PurePath(environment[variable]["value"])
            expected["the keyring where it is mounted"] = str(path.parent) in mounts
            volume = next(volume["secret"] for volume in pod["volumes"] if volume["name"] == "keyring")
            expected["a keyring for the group alone"] = volume["defaultMode"] == 0o440
            expected["the keyring under its name"] = [item["path"] for item in volume["items"]] == [path.name]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if volume["name"] == "mirrors"]
    shared = values.get("mirrors", {}).get("existingClaim")
    expected["the mirrors in what is shared"] = claims == ([shared] if shared else [])
    directory = environment.get("TIDINGS__GIT__MIRRORS_DIR", {"value": "/"})["value"]
    expected["the mirrors where it is mounted"] = (str(pathlib.PurePath(directory).parent) in mounts) == bool(shared)
    listens = environment["TIDINGS__SERVER__LISTEN"]["value"]
    expected["an address that the kind of network has"] = listens.startswith("[::]") == bool(values.get("ipv6"))
    if "NetworkPolicy" in kinds:
        peers = [peer for rule in kinds["NetworkPolicy"]["spec"]["ingress"] for peer in rule["from"]]
        own = {"podSelector": {"matchLabels": selector}}
        expected["a way between replicas"] = (own in peers) == many
    for what, is_so in expected.items():
        if not is_so:
            fail(f"{name}: not {what}")


def check_compose():
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    services = compose["services"]
    for name, service in services.items():
        image = service["image"]
        if "build" not in service and image != services["server"]["image"] and ":" not in image:
            fail(f"compose: the image of {name} has no version")
        for other in service.get("depends_on", []):
            if other not in services:
                fail(f"compose: {name} depends on {other}, which is not there")
        for secret in service.get("secrets", []):
            if secret not in compose["secrets"]:
                fail(f"compose: {name} uses the secret {secret}, which is not there")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                if not (ROOT / "deploy" / source).exists():
                    fail(f"compose: {name} mounts {source}, which does not exist")
            elif source not in compose["volumes"]:
                fail(f"compose: {name} mounts the volume {source}, which is not there")
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                fail(f"compose: {name} is open to everybody on {port}")
    for name in ["server", "receiver"]:
        if not (services[name]["read_only"] and services[name]["cap_drop"] == ["ALL"]):
            fail(f"compose: {name} is not closed")
    settings = services["server"]["environment"]
    checked = subprocess.run([BINARY, "check-config"], env=settings, capture_output=True, text=True, cwd=tempfile.gettempdir())
    if checked.returncode != 0:
        fail(f"compose: the binary refuses the settings: {checked.stderr}")
    scraped = yaml.safe_load((ROOT / "deploy/compose-prometheus.yaml").read_text())
    port = settings["TIDINGS__SERVER__LISTEN"].rsplit(":", 1)[1]
    if scraped["scrape_configs"][0]["static_configs"][0]["targets"] != [f"server:{port}"]:
        fail("compose: Prometheus asks somebody else than the server")
    for path in ["collector.yaml", "grafana-provisioning/datasource.yaml", "grafana-provisioning/dashboards.yaml"]:
        yaml.safe_load((ROOT / "deploy" / path).read_text())
    print(f"compose: {len(services)} services fit together (not started: that needs a container engine)")


def main():
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    if f'version = "{version}"' not in (ROOT / "Cargo.toml").read_text():
        fail(f"appVersion {version} is not the version of Cargo.toml")
    for name, values in GOOD.items():
        jsonschema.validate(merged(defaults, values), schema)
        check_manifests(name, values, rendered(values))
    for values in BAD:
        if jsonschema.Draft7Validator(schema).is_valid(merged(defaults, values)):
            fail(f"the schema takes {values}")
    print(f"chart: {len(GOOD)} sets of values render and fit Kubernetes {' and '.join(VERSIONS)}, {len(BAD)} are refused")
    check_compose()


main()
