package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guide is the text of the operator's guide.
func guide(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(), ".github", "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// block is the first block of commands below a heading of the guide.
func block(t *testing.T, heading string) []string {
	t.Helper()
	_, section, ok := strings.Cut(guide(t), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("the guide has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	m := regexp.MustCompile("(?s)\n```\n(.*?)```").FindStringSubmatch(section)
	if m == nil {
		t.Fatalf("the section %q shows no commands", heading)
	}
	return strings.Split(strings.TrimSpace(m[1]), "\n")
}

// From a machine without weir to a viewer over https with a token, by the exact
// commands of the guide. There are two differences from production: the
// certificate is from a CA in a file, as no public CA issues one here, and
// systemctl is a script that runs the unit's command, with the unit's user and
// capability.
func TestFromNothingToHTTPS(t *testing.T) {
	needs(t, "openssl", "setpriv", "apt-get")
	commands := block(t, "Install")
	if len(commands) != 5 {
		t.Fatalf("the guide shows %d commands: %q", len(commands), commands)
	}
	unit, err := os.ReadFile(artefact("weir.service"))
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	for _, s := range settings(t, string(unit)) {
		env = append(env, strings.ReplaceAll(s, "%S", "/var/lib"))
	}
	start := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(string(unit))
	capability := regexp.MustCompile(`(?m)^AmbientCapabilities=CAP_(\w+)$`).FindStringSubmatch(string(unit))
	if start == nil || capability == nil {
		t.Fatal("the unit lacks what is looked for here")
	}
	arch := regexp.MustCompile(`weir_\*_(\w+)\.deb`).FindStringSubmatch(commands[0])
	if arch == nil {
		t.Fatalf("%s installs no package", commands[0])
	}
	lines := strings.ReplaceAll(strings.Join(commands, "\n"), "WEIR_TLS_AUTO=live.example.org", "WEIR_TLS_CERT=/etc/weir/cert.pem WEIR_TLS_KEY=/etc/weir/key.pem")
	lines = strings.Replace(lines, "weir token new", "TOKEN=$(weir token new", 1) + ")"

	script := `exec 2>&1
rm -f /etc/dpkg/dpkg.cfg.d/*
mkdir -p /root/bare /usr/local/sbin && cd /root/bare
cp /tmp/weir.deb ./weir_1_` + arch[1] + `.deb
echo 10.77.0.1 live.example.org >>/etc/hosts
cat >/usr/local/sbin/systemctl <<'END'
#!/bin/sh
# The package's scripts call it too, where there is a systemd.
[ "$*" = "restart weir" ] || exit 0
mkdir -p /var/lib/weir && chown weir: /var/lib/weir
set -a; . /etc/weir/weir.env; set +a
setpriv --reuid weir --regid weir --init-groups --no-new-privs --inh-caps=-all,+` + strings.ToLower(capability[1]) + ` --ambient-caps=-all,+` + strings.ToLower(capability[1]) + ` --bounding-set=-all,+` + strings.ToLower(capability[1]) + ` \
	env ` + strings.Join(env, " ") + ` ` + start[1] + ` >/var/log/weir.log 2>&1 &
i=0
until weir healthcheck --ready >/dev/null 2>&1; do
	i=$((i+1)); [ $i -lt 600 ] || { cat /var/log/weir.log; exit 1; }
	sleep 0.1
done
END
chmod +x /usr/local/sbin/systemctl
PATH=/usr/local/sbin:$PATH
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=live.example.org -addext subjectAltName=DNS:live.example.org -keyout /tmp/key.pem -out /tmp/cert.pem 2>/dev/null
# As the administrator would: where the service may read it. /etc/weir is the package's.
pair() { install -o root -g weir -m 0640 /tmp/cert.pem /tmp/key.pem /etc/weir/; }
began=$(date +%s%N)
` + strings.Replace(lines, "\n", "\npair\n", 1) + `
weir publish --ca /tmp/cert.pem --pattern --token "$TOKEN" https://live.example.org/whip/demo >/tmp/publish.log 2>&1 &
weir view --ca /tmp/cert.pem --token "$TOKEN" --wait 20s --save /tmp/seen.ivf --duration 3s https://live.example.org/whep/demo
echo "seconds: $((($(date +%s%N) - began) / 1000000)) ms"
test "$(stat -c %s /tmp/seen.ivf)" -gt 10000
ps -o user= -C weir | sort | uniq -c
echo == without a token
if weir view --ca /tmp/cert.pem --duration 1s https://live.example.org/whep/demo; then exit 1; fi
echo == done
`
	out, err := place(t, script)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	says(t, out, "\n== done\n", "kbit/s")
	_, refused, _ := strings.Cut(out, "== without a token\n")
	says(t, refused, "token")
	if !regexp.MustCompile(`(?m)^\s*\d+ weir$`).MatchString(out) {
		t.Error("the node does not run as weir")
	}
	if took := regexp.MustCompile(`seconds: (\d+) ms`).FindStringSubmatch(out); took != nil {
		t.Logf("%d commands, %s ms with three seconds of viewing", len(commands), took[1])
	}
	if t.Failed() {
		t.Log(out)
	}
}

// The guide's commands that weir itself runs exist, with their flags.
func TestGuideCommands(t *testing.T) {
	s := newShell(t, t.TempDir())
	needs(t, "ip")
	checked := 0
	for _, heading := range []string{"Install", "Upgrade"} {
		for _, line := range block(t, heading) {
			line, _, _ = strings.Cut(line, " #")
			if !strings.HasPrefix(line, "weir ") {
				continue
			}
			words := strings.Fields(line)
			help := s.run(strings.Join(words[:len(words)-len(strings.Fields(afterCommand(words)))], " ") + " --help")
			for _, w := range words {
				if name, ok := strings.CutPrefix(w, "--"); ok && !strings.Contains(help, "--"+name) {
					t.Errorf("%s: there is no --%s", line, name)
				}
			}
			checked++
		}
	}
	if checked < 4 {
		t.Errorf("%d commands found", checked)
	}
}

// afterCommand is the rest of words after the names of the command and its
// subcommands.
func afterCommand(words []string) string {
	for i, w := range words {
		if strings.HasPrefix(w, "-") {
			return strings.Join(words[i:], " ")
		}
	}
	return ""
}
