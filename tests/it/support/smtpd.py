"""A mail server for the stories: aiosmtpd with TLS and a login, told how to behave by a file.

Arguments: folder, tls (implicit, starttls or none), port (0: a free one). It prints its port. In the folder lie
cert.pem and key.pem, and behaviour.json, which is read at each command. It writes what it takes to mails.jsonl and
each try to log in to logins.jsonl, one line each.
"""

import asyncio
import json
import os
import ssl
import sys
from email import message_from_bytes, policy

from aiosmtpd.smtp import SMTP, AuthResult

FOLDER, TLS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
USER, PASSWORD = b"tidings", b"correct horse battery"


def behaviour():
    try:
        with open(os.path.join(FOLDER, "behaviour.json"), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def append(name, value):
    with open(os.path.join(FOLDER, name), "a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def is_encrypted(server):
    return server.transport.get_extra_info("ssl_object") is not None


def log_in(server, session, envelope, mechanism, data):
    good = (data.login, data.password) == (USER, PASSWORD)
    append("logins.jsonl", {"user": data.login.decode(), "good": good, "encrypted": is_encrypted(server)})
    # Servers that answer with what they were sent exist; the password must go no further.
    refusal = f"535 5.7.8 no login {data.login.decode()} with {data.password.decode()}"
    return AuthResult(success=good, handled=good, message=None if good else refusal, auth_data=data)


class Handler:
    async def handle_MAIL(self, server, session, envelope, address, options):
        answer = behaviour().get("sender")
        if answer:
            return answer
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        answer = behaviour().get("recipients", {}).get(address)
        if answer:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        behaves = behaviour()
        if behaves.get("data"):
            return behaves["data"]
        mail = message_from_bytes(envelope.content, policy=policy.default)
        lines = mail.get_body(("plain",)).get_content().splitlines()
        if any(line.startswith(tuple(behaves.get("dislikes", []))) for line in lines):
            return "554 5.7.1 this is spam"
        append(
            "mails.jsonl",
            {
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "headers": [[name, str(value)] for name, value in mail.items()],
                "text": mail.get_body(("plain",)).get_content(),
                "html": mail.get_body(("html",)).get_content(),
                "bytes": len(envelope.content),
                "encrypted": is_encrypted(server),
                "user": session.authenticated and session.auth_data.login.decode(),
            },
        )
        if behaves.get("vanishes"):
            # It has the mail, and nobody is told so.
            server.transport.abort()
        return "250 2.0.0 queued"


async def main():
    context = None
    if TLS != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.path.join(FOLDER, "cert.pem"), os.path.join(FOLDER, "key.pem"))

    def session():
        return SMTP(
            Handler(),
            hostname="mail.story",
            tls_context=context if TLS == "starttls" else None,
            authenticator=log_in,
            auth_required=True,
            auth_require_tls=False,
            enable_SMTPUTF8=False,
        )

    implicit = context if TLS == "implicit" else None
    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", PORT, ssl=implicit)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
