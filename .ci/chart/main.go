// Renders a Helm chart the way Helm does: Go's own templates with Sprig's functions, and those few that
// Helm adds. Prints the manifests, one document each. Usage: render CHART [VALUES.yaml]
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(path string) map[string]interface{} {
	text, err := os.ReadFile(path)
	check(err)
	values := map[string]interface{}{}
	check(yaml.Unmarshal(text, &values))
	return values
}

// merge puts what is given over the defaults, table by table, as Helm does.
func merge(defaults, given map[string]interface{}) map[string]interface{} {
	for key, value := range given {
		below, isTable := value.(map[string]interface{})
		there, wasTable := defaults[key].(map[string]interface{})
		if isTable && wasTable {
			defaults[key] = merge(there, below)
		} else {
			defaults[key] = value
		}
	}
	return defaults
}

func main() {
	chart := os.Args[1]
	values := read(filepath.Join(chart, "values.yaml"))
	if len(os.Args) > 2 {
		values = merge(values, read(os.Args[2]))
	}
	about := read(filepath.Join(chart, "Chart.yaml"))
	described := map[string]interface{}{}
	for key, value := range about {
		described[strings.ToUpper(key[:1])+key[1:]] = value
	}
	root := template.New("chart").Option("missingkey=zero")
	functions := sprig.TxtFuncMap()
	delete(functions, "env")
	delete(functions, "expandenv")
	functions["include"] = func(name string, data interface{}) (string, error) {
		var out bytes.Buffer
		err := root.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	functions["toYaml"] = func(value interface{}) (string, error) {
		text, err := yaml.Marshal(value)
		return strings.TrimSuffix(string(text), "\n"), err
	}
	functions["toJson"] = func(value interface{}) (string, error) {
		text, err := json.Marshal(value)
		return string(text), err
	}
	root.Funcs(functions)
	paths, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	check(err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		check(err)
		_, err = root.New(filepath.Base(path)).Parse(string(text))
		check(err)
	}
	context := map[string]interface{}{
		"Values":  values,
		"Chart":   described,
		"Release": map[string]interface{}{"Name": "release", "Namespace": "default", "Service": "Helm"},
	}
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var out bytes.Buffer
		check(root.ExecuteTemplate(&out, name, context))
		if strings.TrimSpace(out.String()) != "" {
			fmt.Printf("---\n# %s\n%s", name, out.String())
		}
	}
}
