package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weir/testnet/printed"
)

// manifestTool builds the tool that reads the manifests, a module of its own.
func manifestTool(t *testing.T) string {
	t.Helper()
	tool := filepath.Join(t.TempDir(), "manifest")
	build := exec.Command("go", "build", "-C", artefact("tools"), "-o", tool, "./manifest")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return tool
}

// manifests are the objects in the manifests, decoded strictly by the types of
// the Kubernetes API, so that a misspelt or misplaced field is an error.
func manifests(t *testing.T, tool, path string) (list []map[string]any, err error) {
	t.Helper()
	out, err := exec.Command(tool, path).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		list = append(list, o)
	}
	return list, nil
}

// at is the value below v at a path such as "spec.ports.0.name".
func at(t *testing.T, v any, path string) any {
	t.Helper()
	for key := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(x) {
				t.Fatalf("%s: there is no item %s", path, key)
			}
			v = x[i]
		default:
			t.Fatalf("%s: nothing at %s", path, key)
		}
	}
	return v
}

func list(t *testing.T, v any, path string) []any {
	t.Helper()
	l, ok := at(t, v, path).([]any)
	if !ok {
		t.Fatalf("%s is no list", path)
	}
	return l
}

// An unknown field is found.
func TestManifestsAreReadStrictly(t *testing.T) {
	tool := manifestTool(t)
	b, err := os.ReadFile(artefact("kubernetes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for wrong, instead := range map[string]string{
		"readOnlyRootFilesystem:": "readonlyRootFilesystem:",
		"kind: StatefulSet":       "kind: StatefullSet",
		"replicas: 3":             `replicas: "three"`,
		"preStop:":                "preStart:",
	} {
		if !strings.Contains(string(b), wrong) {
			t.Fatalf("the manifests have no %q", wrong)
		}
		path := filepath.Join(t.TempDir(), "wrong.yaml")
		if err := os.WriteFile(path, []byte(strings.Replace(string(b), wrong, instead, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := manifests(t, tool, path); err == nil {
			t.Errorf("with %q they are taken", instead)
		}
	}
}

// The pods of the manifests, run with the manifests' environment, arguments and
// files, find each other by the name of the headless service, admit clients
// with a token, answer the probes, and drain before they are stopped.
func TestKubernetes(t *testing.T) {
	objects, err := manifests(t, manifestTool(t), artefact("kubernetes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]map[string]any{}
	for _, o := range objects {
		kinds[o["kind"].(string)] = o
	}
	set, service := kinds["StatefulSet"], kinds["Service"]
	if set == nil || service == nil || kinds["PodDisruptionBudget"] == nil {
		t.Fatalf("the manifests have %d objects", len(objects))
	}
	namespace := at(t, set, "metadata.namespace").(string)
	name := at(t, service, "metadata.name").(string)
	if at(t, set, "spec.serviceName") != name || at(t, service, "spec.clusterIP") != "None" || at(t, service, "spec.publishNotReadyAddresses") != true {
		t.Error("the service does not name the pods of the set while they start")
	}
	labels := at(t, set, "spec.template.metadata.labels").(map[string]any)
	for _, selector := range []any{at(t, service, "spec.selector"), at(t, set, "spec.selector.matchLabels"), at(t, kinds["PodDisruptionBudget"], "spec.selector.matchLabels")} {
		for k, v := range selector.(map[string]any) {
			if labels[k] != v {
				t.Errorf("%s=%s is selected, and the pods have %v", k, v, labels[k])
			}
		}
	}
	pod := at(t, set, "spec.template.spec")
	container := at(t, pod, "containers.0")
	security := at(t, container, "securityContext")
	if at(t, pod, "securityContext.runAsNonRoot") != true || at(t, security, "readOnlyRootFilesystem") != true || at(t, security, "allowPrivilegeEscalation") != false || at(t, security, "capabilities.drop.0") != "ALL" {
		t.Error("the pod may do more than it needs")
	}
	ports := map[string]int{}
	for _, p := range list(t, container, "ports") {
		port := p.(map[string]any)
		ports[port["name"].(string)] = int(port["containerPort"].(float64))
		if host, ok := port["hostPort"]; ok && host != port["containerPort"] {
			t.Errorf("%v is mapped to another port: clients and nodes are told the node's own", port)
		}
	}
	if grace := at(t, pod, "terminationGracePeriodSeconds").(float64); grace <= 300+10 {
		t.Errorf("%v s are less than the drain and the stop may take", grace)
	}

	// The secret, made as the head of the file says, if there is a kubectl.
	needs(t, "ip", "nsenter")
	dir := t.TempDir()
	s := newShell(t, dir)
	made := 0
	for _, line := range headCommands(t, "kubernetes.yaml") {
		if strings.HasPrefix(line, "weir ") {
			s.run(line)
			made++
		}
	}
	for _, item := range list(t, pod, "volumes.0.secret.items") {
		if _, err := os.Stat(filepath.Join(dir, at(t, item, "key").(string))); err != nil {
			t.Errorf("the secret's file is not made: %v", err)
		}
	}
	if made != 2 {
		t.Fatalf("%d commands make secrets", made)
	}

	// The image's environment, overridden by the manifest's.
	image, err := os.ReadFile(artefact("Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	base := map[string]string{}
	for _, m := range regexp.MustCompile(`(WEIR_[A-Z_]+)=(\S+)`).FindAllStringSubmatch(string(image), -1) {
		base[m[1]] = m[2]
	}
	if len(base) < 5 {
		t.Fatalf("the image sets %q", base)
	}
	var hosts strings.Builder
	for i := 1; i <= 3; i++ {
		fmt.Fprintf(&hosts, "10.77.0.%d %s.%s.svc.cluster.local\n", i, name, namespace)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts"), []byte(hosts.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, a := range list(t, container, "args") {
		args = append(args, a.(string))
	}
	ip := func(i int) string { return fmt.Sprintf("10.77.0.%d", i) }
	run := func(i int) *printed.Job {
		env := map[string]string{}
		for k, v := range base {
			// Each pod has its own addresses; here three pods share a machine.
			v = strings.NewReplacer("0.0.0.0", ip(i), "127.0.0.1", ip(i)).Replace(v)
			env[k] = v
		}
		for _, e := range list(t, container, "env") {
			v := e.(map[string]any)
			value, ok := v["value"].(string)
			if !ok {
				from := v["valueFrom"].(map[string]any)
				field, _ := from["fieldRef"].(map[string]any)
				switch {
				case field == nil && at(t, from, "secretKeyRef.optional") == true:
					continue
				case field == nil:
					t.Fatalf("%v needs more of the secret than the commands make", v["name"])
				case field["fieldPath"] == "status.hostIP":
					value = ip(i)
				case field["fieldPath"] == "metadata.name":
					value = fmt.Sprintf("%s-%d", name, i-1)
				case field["fieldPath"] == "spec.nodeName":
					value = fmt.Sprintf("machine-%d", i)
				default:
					t.Fatalf("%v", field)
				}
			}
			for k, known := range env {
				value = strings.ReplaceAll(value, "$("+k+")", known)
			}
			if strings.Contains(value, "$(") {
				t.Errorf("%s=%s: Kubernetes knows no such variable, or not yet", v["name"], value)
			}
			if strings.HasPrefix(value, "0.0.0.0:") {
				value = ip(i) + strings.TrimPrefix(value, "0.0.0.0")
			}
			env[v["name"].(string)] = value
		}
		env["WEIR_DATA_DIR"] = filepath.Join(dir, fmt.Sprint("data", i))
		var set strings.Builder
		for k, v := range env {
			fmt.Fprintf(&set, " %s='%s'", k, strings.ReplaceAll(v, "/etc/weir/", dir+"/"))
		}
		// Its own /etc/hosts takes the place of the cluster's DNS.
		return s.start(fmt.Sprintf("unshare --mount --propagation private -- sh -c 'mount --bind %s/hosts /etc/hosts && exec env \"$@\"' sh%s weir %s", dir, set.String(), strings.Join(args, " ")), "node is ready")
	}
	var pods []*printed.Job
	for i := 1; i <= 3; i++ {
		pods = append(pods, run(i))
	}
	for i := 1; i <= 3; i++ {
		eventually(t, fmt.Sprintf("pod %d meets the others", i), func() bool {
			out, err := s.try("weir peers --json --admin " + ip(i) + ":8081")
			var peers []json.RawMessage
			return err == nil && json.Unmarshal([]byte(out), &peers) == nil && len(peers) == 2
		})
	}
	probe := func(i int, which string) error {
		get := at(t, container, which+".httpGet")
		port, ok := at(t, get, "port").(string)
		if !ok || ports[port] == 0 {
			t.Fatalf("%s asks at port %v, which is none of %v", which, at(t, get, "port"), ports)
		}
		out, err := s.try(fmt.Sprintf("curl --silent --show-error --fail --max-time 10 http://%s:%d%s", ip(i), ports[port], at(t, get, "path")))
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	for i := 1; i <= 3; i++ {
		for _, which := range []string{"readinessProbe", "livenessProbe"} {
			if err := probe(i, which); err != nil {
				t.Errorf("pod %d, %s: %v", i, which, err)
			}
		}
	}
	s.run(fmt.Sprintf("curl --silent --fail http://%s:%d/metrics", ip(1), ports["metrics"]))

	token := strings.TrimSpace(s.run("weir token new --key signing-key.json --network kubernetes --publish --view demo"))
	s.start("weir publish --pattern --token "+token+" http://10.77.0.1:8080/whip/demo", "kbit/s")
	s.start("weir view --wait 20s --token "+token+" http://10.77.0.2:8080/whep/demo", "kbit/s")
	if out, err := s.try("weir view --duration 1s http://10.77.0.2:8080/whep/demo"); err == nil {
		t.Errorf("without a token it is shown: %s", out)
	}

	// The third pod is deleted: preStop, and then the signal.
	var command []string
	for _, a := range list(t, container, "lifecycle.preStop.exec.command") {
		command = append(command, strings.Replace(a.(string), "/weir", "weir", 1))
	}
	s.run("env WEIR_ADMIN=" + ip(3) + ":8081 " + strings.Join(command, " "))
	if probe(3, "readinessProbe") == nil {
		t.Error("it is ready while it drains")
	}
	if err := probe(3, "livenessProbe"); err != nil {
		t.Errorf("it is not alive while it drains: %v", err)
	}
	if err := pods[2].Stop(); err != nil {
		t.Error(err)
	}
}
