"""An S3 server for the stories: moto behind a check of every signature, told how to behave by a file.

The check is botocore's: it computes the signature of each request again from its query and headers. Arguments:
folder, port (0: a free one). It prints its port. In the folder lies behaviour.json, which is read at each request:
`fail` (a list of [method, status] that are answered so, each once), `cut` (how many answers to GET of an object are
cut in the middle). It writes each request to requests.jsonl. Paths below /-/ are for the stories alone: keys, uploads
and put (the key in the query).
"""

import datetime
import json
import os
import sys
import threading
from urllib.parse import parse_qsl, quote, urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import Client

FOLDER, PORT = sys.argv[1], int(sys.argv[2])
KEY, SECRET, BUCKET, REGION = "STORIESKEY", "PLANTEDs3/Secret+K8vQ=", "stories", "eu-central-1"
LOCK = threading.Lock()


def behaviour(change):
    """Reads how to behave, and writes what is left of it."""
    path = os.path.join(FOLDER, "behaviour.json")
    with LOCK:
        try:
            with open(path, encoding="utf-8") as file:
                known = json.load(file)
        except FileNotFoundError:
            return None
        said = change(known)
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(known, file)
        os.replace(path + ".new", path)
        return said


def fault(environ):
    """The code of what is wrong with the signature of a request; None: it is right."""
    path, _, raw = environ["REQUEST_URI"].partition("?")
    pairs = parse_qsl(raw, keep_blank_values=True)
    given = dict(pairs)
    if given.get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256" or len(given) != len(pairs):
        return "AccessDenied"
    key, day, region, service, end = given["X-Amz-Credential"].split("/")
    if (key, region, service, end) != (KEY, REGION, "s3", "aws4_request"):
        return "InvalidAccessKeyId"
    date = datetime.datetime.strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    age = (datetime.datetime.utcnow() - date).total_seconds()
    expires = int(given["X-Amz-Expires"])
    if not date.strftime("%Y%m%d") == day or not -60 <= age <= expires <= 604800:
        return "RequestExpired"
    names = given["X-Amz-SignedHeaders"].split(";")
    headers = {name: environ.get("HTTP_" + name.upper().replace("-", "_"), "") for name in names}
    if "host" not in names:
        return "SignatureDoesNotMatch"
    plain = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs if name != "X-Amz-Signature"
    )
    request = AWSRequest(environ["REQUEST_METHOD"], f"http://{headers['host']}{path}?{plain}", headers)
    request.context["timestamp"] = given["X-Amz-Date"]
    signer = S3SigV4QueryAuth(Credentials(KEY, SECRET), service, region, expires)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return None if signer.signature(text, request) == given["X-Amz-Signature"] else "SignatureDoesNotMatch"


class Checked:
    """The server behind the check."""

    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        made = self.plain("PUT", f"/{BUCKET}", data=b"")
        assert made.status_code == 200, made.data

    def plain(self, method, path, **more):
        return Client(self.moto).open(path, method=method, **more)

    def __call__(self, environ, start):
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path.startswith("/-/"):
            return self.told(path[3:], environ, start)
        code = fault(environ)
        with LOCK, open(os.path.join(FOLDER, "requests.jsonl"), "a", encoding="utf-8") as file:
            query = [name for name, _ in parse_qsl(environ["QUERY_STRING"], keep_blank_values=True)]
            ranged = environ.get("HTTP_RANGE")
            file.write(json.dumps({"method": method, "path": path, "query": query, "range": ranged, "fault": code}) + "\n")
        if code is not None:
            return self.error(environ, start, 403, code)
        status = behaviour(lambda known: self.failing(known, method))
        if status:
            return self.error(environ, start, status, "SlowDown" if status == 503 else "AccessDenied")
        is_object = method == "GET" and "/objects/" in path
        if is_object and behaviour(self.cutting):
            return self.cut(environ, start)
        return self.moto(environ, start)

    @staticmethod
    def failing(known, method):
        for place, (wanted, status) in enumerate(known.get("fail", [])):
            if wanted == method:
                del known["fail"][place]
                return status
        return None

    @staticmethod
    def cutting(known):
        left = known.get("cut", 0)
        known["cut"] = max(left - 1, 0)
        return left > 0

    @staticmethod
    def error(environ, start, status, code):
        # What was sent is read, so that the client reads the answer.
        length = int(environ.get("CONTENT_LENGTH") or 0)
        while length > 0:
            part = environ["wsgi.input"].read(min(length, 65536))
            if not part:
                break
            length -= len(part)
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'.encode()
        start(f"{status} No", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def cut(self, environ, start):
        """Half of the bytes that the head announces."""
        body = b"".join(self.moto(environ, start))

        def half():
            yield body[: len(body) // 2]
            raise ConnectionAbortedError

        return half()

    def told(self, what, environ, start):
        from moto.s3.models import s3_backends

        bucket = s3_backends["123456789012"]["aws"].buckets[BUCKET]
        query = dict(parse_qsl(environ["QUERY_STRING"]))
        if what == "put":
            s3_backends["123456789012"]["aws"].put_object(BUCKET, query["key"], query["body"].encode())
        uploads = [[upload.key_name, name] for name, upload in bucket.multiparts.items()]
        body = json.dumps({"keys": sorted(bucket.keys.keys()), "uploads": sorted(uploads)}).encode()
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


server = make_server("127.0.0.1", PORT, Checked(), threaded=True, request_handler=Quiet)
print(server.port, flush=True)
server.serve_forever()
