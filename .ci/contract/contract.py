"""Runs schemathesis once for each role. `contract.py SERVER RECEIVER FOLDER EXAMPLES`

Each run has its own app or token, because requests that succeed change things. Routes that end the
caller itself (erase of the app, revocation of its tokens) run last, in a run of their own.
"""

import json
import os
import subprocess
import sys
import urllib.request

SERVER, RECEIVER, FOLDER, EXAMPLES = sys.argv[1:]
# What would end the caller, or what it watches, in the middle of its own run.
ENDS = ["delete_api_app", "delete_api_repositories_id"]
# A tail has no end, and a claim or a result may wait for a minute: stories try them.
ENDLESS = [
    "get_api_repositories_id_events",
    "get_api_ledger_follow",
    "get_api_admin_apps_app_id_ledger_follow",
    "get_api_admin_ledger_follow",
    "post_api_tasks_claim",
    "get_api_tasks_id_result",
    "post_v1_codeq_tasks_claim",
    "get_v1_codeq_tasks_id_result",
    "get_api_admin_apps_app_id_tasks_id_result",
]
# `positive_data_acceptance`: a schema cannot say which repositories exist. `ignored_auth`: routes for
# anybody take a token as well; which role may call which route is a test of its own.
EXCLUDED = ["positive_data_acceptance", "ignored_auth"]
# More than one, and CPython 3.11 now and then loses count of its parser's depth (python/cpython#106905), in a
# library that parses its own sources: an error that is not ours.
WORKERS = "1"


def call(method, path, body=None, token=None):
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(SERVER + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def app():
    """An app that watches a repository: its id, its token, and the repository's id."""
    body = {"app_name": "contract", "email": "a@b.c", "base_url": RECEIVER}
    onboarded = call("POST", "/api/apps/onboard", body)
    token = onboarded["token"]
    watched = call("POST", "/api/repositories", {"url": f"{FOLDER}/project"}, token)
    return onboarded["app_id"], token, watched["repository_id"]


def run(role, token, ids, *arguments):
    """One run; `ids`: what stands for `{id}` below a path, so that requests find something."""
    print(f"contract: as {role}", flush=True)
    config = f"{FOLDER}/schemathesis.toml"
    with open(config, "w") as file:
        for path, known in ids.items():
            file.write(f"""[[operations]]\ninclude-path-regex = "^{path}/[{{]id"\nparameters = {{ "path.id" = "{known}" }}\n""")
    command = [
        os.path.join(os.path.dirname(sys.executable), "schemathesis"), "--no-color", "--config-file", config,
        "run", f"{SERVER}/openapi.json",
        "--max-examples", EXAMPLES, "--phases", "examples,coverage,fuzzing", "--checks", "all",
        "--exclude-checks", ",".join(EXCLUDED), "--generation-deterministic", "--workers", WORKERS,
        "--suppress-health-check", "all", "--request-timeout", "30", "--warnings", "off", "--continue-on-failure",
        *arguments,
    ]
    for operation in ENDLESS:
        command += ["--exclude-operation-id", operation]
    if token:
        command += ["--header", f"Authorization: Bearer {token}"]
    return subprocess.run(command, cwd=FOLDER).returncode


def main():
    with open(f"{FOLDER}/data/admin-token") as file:
        admin = file.read().strip()
    keeps = [word for operation in ENDS for word in ("--exclude-operation-id", operation)]
    ends = [word for operation in ENDS for word in ("--include-operation-id", operation)]
    app_id, token, repository = app()
    other_id, other, others = app()
    own = {"/api/repositories": repository}
    runs = [
        ("nobody", None, {}, keeps),
        ("an app", token, own, keeps),
        ("an app that asks for what others have", token, {"/api/repositories": others}, keeps),
        ("the administrator", admin, {"/api/admin/apps": app_id}, keeps),
        ("an app that ends itself", other, {"/api/repositories": others}, ends),
    ]
    failed = [role for role, token, ids, arguments in runs if run(role, token, ids, *arguments) != 0]
    if failed:
        sys.exit("contract: answers differ from the description, as " + ", ".join(failed))


main()
