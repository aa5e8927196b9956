// Command manifest checks Kubernetes manifests against the types of the API, as
// a server with strict field validation does, and prints the objects as JSON,
// one per line.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// types are the types allowed in the manifests.
var types = map[metav1.TypeMeta]func() any{
	{APIVersion: "v1", Kind: "Namespace"}:                       func() any { return new(corev1.Namespace) },
	{APIVersion: "v1", Kind: "Secret"}:                          func() any { return new(corev1.Secret) },
	{APIVersion: "v1", Kind: "ConfigMap"}:                       func() any { return new(corev1.ConfigMap) },
	{APIVersion: "v1", Kind: "Service"}:                         func() any { return new(corev1.Service) },
	{APIVersion: "v1", Kind: "ServiceAccount"}:                  func() any { return new(corev1.ServiceAccount) },
	{APIVersion: "apps/v1", Kind: "StatefulSet"}:                func() any { return new(appsv1.StatefulSet) },
	{APIVersion: "apps/v1", Kind: "DaemonSet"}:                  func() any { return new(appsv1.DaemonSet) },
	{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}:      func() any { return new(policyv1.PodDisruptionBudget) },
	{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}: func() any { return new(networkingv1.NetworkPolicy) },
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: manifest FILE")
		os.Exit(3)
	}
	b, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = run(b, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "manifest:", err)
		os.Exit(1)
	}
}

func run(manifests []byte, w io.Writer) error {
	var problems []error
	out := json.NewEncoder(w)
	for i, doc := range bytes.Split(manifests, []byte("\n---\n")) {
		var head metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &head); err != nil {
			problems = append(problems, fmt.Errorf("document %d: %w", i+1, err))
			continue
		}
		newObject := types[head]
		if newObject == nil {
			problems = append(problems, fmt.Errorf("document %d: no type known for apiVersion %q, kind %q", i+1, head.APIVersion, head.Kind))
			continue
		}
		object := newObject()
		data, err := yaml.YAMLToJSONStrict(doc)
		if err != nil {
			problems = append(problems, fmt.Errorf("document %d, %s: %w", i+1, head.Kind, err))
			continue
		}
		// The server decodes in the same way, case-sensitively; encoding/json
		// ignores case.
		strict, err := kjson.UnmarshalStrict(data, object)
		if err = errors.Join(append(strict, err)...); err != nil {
			problems = append(problems, fmt.Errorf("document %d, %s: %w", i+1, head.Kind, err))
			continue
		}
		if err := out.Encode(object); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}
