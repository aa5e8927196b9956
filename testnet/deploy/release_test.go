package deploy

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The same source gives the same bytes in another directory; the checksums
// match the files; and the SBOM and the licences list the binary's modules.
func TestRelease(t *testing.T) {
	again, err := release(filepath.Join(t.TempDir(), "another", "place"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(built, "*"))
	if err != nil || len(files) != 5 {
		t.Fatalf("released are %q, %v; want archive, package, SBOM, checksums and the image's directory", files, err)
	}
	files = append(files, binary(), filepath.Join(built, "image", "Dockerfile"))
	for _, f := range files {
		rel, err := filepath.Rel(built, f)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(f); err != nil || info.IsDir() {
			continue
		}
		a, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(again, rel))
		if err != nil {
			t.Errorf("%s is not built again: %v", rel, err)
		} else if !bytes.Equal(a, b) {
			t.Errorf("%s has other bytes when it is built in another directory: %d and %d", rel, len(a), len(b))
		}
	}
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = built
	if out, err := check.CombinedOutput(); err != nil || strings.Count(string(out), ": OK") != 3 {
		t.Errorf("%v: %s", err, out)
	}

	info, err := buildinfo.ReadFile(binary())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range info.Settings {
		if s.Key == "CGO_ENABLED" && s.Value != "0" || s.Key == "vcs.modified" && s.Value != "false" {
			t.Errorf("it was built with %s=%s", s.Key, s.Value)
		}
	}
	if info.Main.Version == "" || info.Main.Version == "(devel)" {
		t.Errorf("the binary's version is %q", info.Main.Version)
	}
	var bom struct {
		BOMFormat  string `json:"bomFormat"`
		Components []struct{ Name, Version string }
	}
	b, err := os.ReadFile(one(t, ".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &bom); err != nil || bom.BOMFormat != "CycloneDX" {
		t.Fatalf("the SBOM: %v, a %q", err, bom.BOMFormat)
	}
	listed := map[string]bool{}
	for _, c := range bom.Components {
		listed[c.Name+" "+c.Version] = true
	}
	licences, err := os.ReadFile(filepath.Join(built, "image", "THIRD-PARTY-LICENSES.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Deps) < 50 {
		t.Fatalf("the binary tells of %d modules only", len(info.Deps))
	}
	for _, m := range info.Deps {
		id := m.Path + " " + m.Version
		if !listed[id] {
			t.Errorf("the SBOM does not have %s", id)
		}
		if !bytes.Contains(licences, []byte(id+" (")) {
			t.Errorf("there is no licence of %s", id)
		}
	}
	says(t, string(licences), "Go go1.", "MIT License", "Redistribution and use in source and binary forms")

	out, err := exec.Command("tar", "-tzf", one(t, ".tar.gz")).Output()
	if err != nil {
		t.Fatal(err)
	}
	says(t, string(out), "/weir\n", "/LICENSE\n", "/THIRD-PARTY-LICENSES.txt\n", "/man/weir-node.1.gz\n", "/deploy/compose.yaml\n", "/deploy/kubernetes.yaml\n", "/deploy/weir.service\n")
}

// The binary needs nothing of the machine that it runs on: no interpreter, and
// no CA certificates.
func TestBinaryStandsAlone(t *testing.T) {
	b, err := exec.Command("readelf", "--program-headers", "--wide", binary()).Output()
	if err != nil {
		t.Skipf("readelf: %v", err)
	}
	if strings.Contains(string(b), "INTERP") || strings.Contains(string(b), "DYNAMIC") {
		t.Errorf("it is linked to libraries: %s", b)
	}
}
