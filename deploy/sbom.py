#!/usr/bin/env python3
"""Writes the components of the binary as a CycloneDX 1.5 document (a software bill of materials).

Reads `cargo metadata --format-version 1 --locked --filter-platform TRIPLE` from standard input, and the
checksums from Cargo.lock (the only argument). The document lists packages that are linked or run at build
time, not packages that only tests need.
"""
import json
import re
import sys


def checksums(lock):
    """SHA-256 of each downloaded package by (name, version)."""
    found = {}
    for block in lock.split("[[package]]")[1:]:
        fields = dict(re.findall(r'^(name|version|checksum) = "([^"]*)"$', block, re.M))
        if "checksum" in fields:
            found[fields["name"], fields["version"]] = fields["checksum"]
    return found


def main():
    metadata = json.load(sys.stdin)
    with open(sys.argv[1], encoding="utf-8") as lock:
        sums = checksums(lock.read())
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]

    def needed(identity):
        wanted = []
        for dependency in nodes[identity]["deps"]:
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
            if kinds & {None, "build"}:
                wanted.append(dependency["pkg"])
        return wanted

    seen, waiting = set(), [root]
    while waiting:
        identity = waiting.pop()
        if identity not in seen:
            seen.add(identity)
            waiting.extend(needed(identity))

    def purl(package):
        return f"pkg:cargo/{package['name']}@{package['version']}"

    def component(package, kind):
        about = {
            "type": kind,
            "bom-ref": purl(package),
            "name": package["name"],
            "version": package["version"],
            "purl": purl(package),
        }
        if package.get("license"):
            about["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        checksum = sums.get((package["name"], package["version"]))
        if checksum:
            about["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return about

    ordered = sorted(seen, key=lambda identity: purl(packages[identity]))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(packages[root], "application")},
        "components": [component(packages[identity], "library") for identity in ordered if identity != root],
        "dependencies": [
            {
                "ref": purl(packages[identity]),
                "dependsOn": sorted({purl(packages[other]) for other in needed(identity)}),
            }
            for identity in ordered
        ],
    }
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
