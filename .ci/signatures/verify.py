"""Verifies signed bodies with the library from PyPI: `verify.py FILE` reads what the story wrote."""

import base64
import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def verifies(secret, body, headers):
    try:
        # Bodies of the story are any text, not only JSON.
        Webhook(secret).verify(body, headers, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


def main(path):
    bodies = checks = 0
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = json.loads(line)
            headers = line["headers"]
            body, tampered = (base64.b64decode(line[name]) for name in ("body", "tampered"))
            for secret in line["good"]:
                if not verifies(secret, body, headers):
                    sys.exit(f"python: line {number}: a receiver with a key that signs refuses the body")
                if verifies(secret, tampered, headers):
                    sys.exit(f"python: line {number}: a body with a flipped bit is accepted")
            for secret in line["bad"]:
                if verifies(secret, body, headers):
                    sys.exit(f"python: line {number}: a receiver with a key that does not sign accepts the body")
            bodies += 1
            checks += 2 * len(line["good"]) + len(line["bad"])
    if bodies == 0:
        sys.exit("python: there are no bodies")
    print(f"python: {bodies} bodies, {checks} checks")


main(sys.argv[1])
