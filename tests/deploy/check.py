"""Lints and renders the chart with Helm itself, checks what comes out as an API server would and by rules of our
own, and lays out what the container of each case sees, for the Rust test to read.

    check.py CHART OUT
"""

import base64
import json
import pathlib
import sys

import kubernetes_validate
import yaml
from helm_python.chart import Chart, lint
from helm_python.errors import HelmError

KUBERNETES = ["1.30", "1.34", kubernetes_validate.latest_version()]
SECRETS = pathlib.Path(__file__).parent.parent / "config_files" / "secrets"
TLS = {"tls.crt": (SECRETS / "tls.crt").read_text(), "tls.key": (SECRETS / "tls.key").read_text()}
KEY = base64.b64encode(bytes(range(32))).decode()

ONE_TENANT = """
[[tenants]]
id = "globex"
sdk_app_id = 1400000002
secret_key = { %s }
[[tenants.api_keys]]
id = "bots"
sha256 = "9f0d8b1e6ac24a7793d1c08e24be7f5a1b6690c2d7e3f84415a9e0637cdb2f18"
scopes = ["sessions"]
"""

# Values by case, and the Secrets that are there already.
GOOD = {
    "default": ({}, {}),
    "secret_from_values": (
        {
            "secrets": {"data": {"globex": "hunter2", "seal-k1": KEY, "1": "x"}},
            "seal": {"active": "k1", "keys": {"k1": "seal-k1"}},
            "tenants": ONE_TENANT % 'file = "/etc/imgate/secrets/globex"',
            "persistence": {"enabled": False},
            "shutdown": {"preStopSleepSeconds": 0, "graceSeconds": 25, "terminationGracePeriodSeconds": 30},
        },
        {},
    ),
    "redis_tls_existing_secret": (
        {
            "replicas": 3,
            "image": {"digest": "sha256:" + "0" * 64},
            "secrets": {"existingSecret": "mine"},
            "store": {"kind": "redis"},
            "seal": {"active": "k2", "keys": {"k1": "seal-k1", "k2": "seal-k2"}},
            "grpc": {"port": 8443, "tls": {"secretName": "server", "requireClientCertificate": True}},
            "ops": {"port": 8080},
            "log": {"format": "text", "level": "info,imgate::connectors=debug"},
            "tenants": ONE_TENANT % 'env = "GLOBEX_KEY"',
            "extraConfig": '[backoff]\nfirst = "1s"\n',
            "extraEnv": [
                {"name": "GLOBEX_KEY", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "globex"}}}
            ],
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "persistence": {"storageClass": "fast"},
            "service": {"type": "LoadBalancer", "annotations": {"example.com/internal": "true"}},
            "serviceAccount": {"create": False, "name": "bots"},
            "podAnnotations": {"example.com/a": "b"},
            "podLabels": {"example.com/c": "d"},
            "imagePullSecrets": [{"name": "registry"}],
            "priorityClassName": "high",
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "im", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
            ],
            "fullnameOverride": "gateway",
        },
        {
            "mine": {"globex": "hunter2", "redis-url": "redis://:hunter2@redis:6379", "seal-k1": KEY, "seal-k2": KEY},
            "server": {**TLS, "ca.crt": TLS["tls.crt"]},
        },
    ),
}

# Values that must be refused, with a part of the reason.
BAD = {
    "embedded_with_two_replicas": ({"replicas": 2}, "more than 1 needs store.kind: redis"),
    "no_time_to_drain": ({"shutdown": {"graceSeconds": 40}}, "must be at least 50"),
    "redis_without_seal_keys": ({"store": {"kind": "redis"}}, "seal.keys: required"),
    "wrong_active_key": (
        {"seal": {"active": "k2", "keys": {"k1": "seal-k1"}}, "secrets": {"existingSecret": "mine"}},
        "seal.active: must be one of seal.keys",
    ),
    "keys_without_a_secret": ({"seal": {"active": "k1", "keys": {"k1": "seal-k1"}}}, "secrets.existingSecret"),
    "client_certificates_without_tls": ({"grpc": {"tls": {"requireClientCertificate": True}}}, "grpc.tls.secretName"),
    "one_port_for_both": ({"ops": {"port": 50051}}, "must not be grpc.port"),
    "unknown_value": ({"replicaCount": 1}, "replicaCount"),
    "unknown_store": ({"store": {"kind": "postgres"}}, "kind"),
    "no_tenants": ({"tenants": ""}, "tenants"),
}

failures = []


def check(case, holds, what):
    if not holds:
        failures.append(f"{case}: {what}")


def by_kind(objects, kind):
    return [one for one in objects if one["kind"] == kind]


def validate(case, objects):
    for one in objects:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "PodMonitor":
            # Not a kind of Kubernetes itself; the fields that its definition requires.
            check(case, one["apiVersion"] == "monitoring.coreos.com/v1", f"{name}: apiVersion")
            check(case, one["spec"]["podMetricsEndpoints"], f"{name}: no endpoints")
            check(case, one["spec"]["selector"]["matchLabels"], f"{name}: no selector")
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                check(case, False, f"{name} at {version}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError as error:
                check(case, False, f"{name} at {version}: {error.message}")


def restricted(case, pod):
    """The Pod Security Standard "restricted", and a read-only root."""
    context = pod["securityContext"]
    check(case, context["runAsNonRoot"] is True, "runAsNonRoot")
    check(case, context["runAsUser"] > 0, "runAsUser")
    check(case, context["seccompProfile"] == {"type": "RuntimeDefault"}, "seccompProfile")
    check(case, pod["automountServiceAccountToken"] is False, "automountServiceAccountToken")
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        check(case, field not in pod, field)
    for volume in pod["volumes"]:
        kinds = set(volume) - {"name"}
        check(case, kinds <= {"configMap", "secret", "emptyDir"}, f"volume of kind {kinds}")
    for container in pod["containers"]:
        context = container["securityContext"]
        check(case, context["allowPrivilegeEscalation"] is False, "allowPrivilegeEscalation")
        check(case, context["readOnlyRootFilesystem"] is True, "readOnlyRootFilesystem")
        check(case, context["capabilities"] == {"drop": ["ALL"]}, "capabilities")
        check(case, "privileged" not in context, "privileged")
        check(case, container["resources"]["limits"]["memory"], "no memory limit")


def pod_rules(case, pod, container):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        check(case, container[probe]["httpGet"]["port"] in ports, f"{probe}: unknown port")
    check(case, container["livenessProbe"]["httpGet"]["path"] == "/live", "liveness asks for more than life")
    repository, _, tag = container["image"].partition("@" if "@" in container["image"] else ":")
    check(case, repository and tag, f"image {container['image']}")
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    check(case, sleep < pod["terminationGracePeriodSeconds"], "preStop sleeps through the termination period")
    return ports, sleep


def object_rules(case, objects, sets, ports):
    pod_labels = sets["spec"]["template"]["metadata"]["labels"].items()
    services = by_kind(objects, "Service")
    headless = [one["metadata"]["name"] for one in services if one["spec"].get("clusterIP") == "None"]
    check(case, sets["spec"]["serviceName"] in headless, "serviceName is no headless Service")
    check(case, len(services) == 2, "two Services")
    for one in services:
        check(case, one["spec"]["selector"].items() <= pod_labels, "a Service selects other pods")
        for port in one["spec"]["ports"]:
            check(case, port["targetPort"] in ports, f"a Service's port {port['targetPort']} is unknown")
    for one in by_kind(objects, "PodMonitor") + by_kind(objects, "PodDisruptionBudget"):
        labels = one["spec"]["selector"]["matchLabels"].items()
        check(case, labels <= pod_labels, f"the {one['kind']} selects other pods")
        for endpoint in one["spec"].get("podMetricsEndpoints", []):
            check(case, endpoint["port"] in ports, "the PodMonitor's port is unknown")
    budgets = by_kind(objects, "PodDisruptionBudget")
    check(case, bool(budgets) == (sets["spec"]["replicas"] > 1), "PodDisruptionBudget with one replica, or none with more")
    for budget in budgets:
        both = {"minAvailable", "maxUnavailable"} <= set(budget["spec"])
        check(case, not both, "PodDisruptionBudget with both bounds")
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    check(case, len(names) == len(set(names)), "two objects of one name")
    for name in {one["metadata"]["name"] for one in objects}:
        check(case, len(name) <= 63, f"{name} is too long")


def lay_out(case, root, objects, external, sets):
    """Writes every mounted file at its place under `root`."""
    pod = sets["spec"]["template"]["spec"]
    secrets = {one["metadata"]["name"]: one["stringData"] for one in by_kind(objects, "Secret")} | external
    maps = {one["metadata"]["name"]: one["data"] for one in by_kind(objects, "ConfigMap")}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claims = [claim["metadata"]["name"] for claim in sets["spec"].get("volumeClaimTemplates", [])]
    for mount in pod["containers"][0]["volumeMounts"]:
        folder = root / mount["mountPath"].lstrip("/")
        folder.mkdir(parents=True)
        volume = volumes.get(mount["name"])
        if volume is None:
            check(case, mount["name"] in claims, f"no volume {mount['name']}")
            continue
        if "configMap" in volume:
            files = maps[volume["configMap"]["name"]]
        elif "secret" in volume:
            check(case, volume["secret"]["secretName"] in secrets, "no such Secret")
            files = secrets[volume["secret"]["secretName"]]
        else:
            files = {}
        check(case, files == {} or mount.get("readOnly") is True, f"{mount['name']} can be written")
        for name, content in files.items():
            (folder / name).write_text(content)
    hidden = [content for secret in secrets.values() for content in secret.values() if len(content) > 3]
    for text in (text for data in maps.values() for text in data.values()):
        check(case, not any(secret in text for secret in hidden), "a secret stands in the ConfigMap")
    return [variable["name"] for variable in pod["containers"][0].get("env", [])]


def good(case, chart_path, chart, values, external, out):
    for version in KUBERNETES:
        found = lint(chart_path, values, strict=True, namespace="bots", kube_version=version)
        problems = [one for one in found["messages"] if one["severity"] > 1] + found["errors"]
        check(case, not problems, f"lint: {problems}")
    rendered = chart.render(values, name="demo", namespace="bots")
    texts = [text for path, text in rendered.items() if path.endswith(".yaml")]
    objects = [one for text in texts for one in yaml.safe_load_all(text) if one]
    validate(case, objects)
    (sets,) = by_kind(objects, "StatefulSet")
    pod = sets["spec"]["template"]["spec"]
    restricted(case, pod)
    ports, sleep = pod_rules(case, pod, pod["containers"][0])
    object_rules(case, objects, sets, ports)
    environment = lay_out(case, out / case / "root", objects, external, sets)
    facts = {
        "ports": ports,
        "sleep_seconds": sleep,
        "termination_seconds": pod["terminationGracePeriodSeconds"],
        "replicas": sets["spec"]["replicas"],
        "environment": environment,
        "args": pod["containers"][0]["args"],
    }
    (out / case / "facts.json").write_text(json.dumps(facts))


def main():
    chart_path, out = sys.argv[1], pathlib.Path(sys.argv[2])
    with Chart.load(chart_path) as chart:
        for case, (values, external) in GOOD.items():
            good(case, chart_path, chart, values, external, out)
        for case, (values, reason) in BAD.items():
            try:
                chart.validate_schema(values)
                chart.render(values, name="demo", namespace="bots")
                check(case, False, "is accepted")
            except HelmError as error:
                check(case, reason in str(error), f"refused for another reason: {error}")
    for failure in failures:
        print(failure)
    print(f"{len(GOOD)} good and {len(BAD)} bad sets of values, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
