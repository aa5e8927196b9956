package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/config"
	"weir/cmd/weir/console"
)

// writeFile makes a temporary file and returns its path.
func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every mistake in a file is reported with its line and column, and how to fix it.
func TestConfigFileThatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"an unknown key":             {"# limits\nsesion-limit: 5\n", `weir.yaml:2:1: there is no setting "sesion-limit" (did you mean session-limit?)`},
		"an underscore":              {"log_level: debug\n", `:1:1: there is no setting "log_level" (did you mean log-level?)`},
		"a variable":                 {"WEIR_LOG_LEVEL: debug\n", `(did you mean log-level?)`},
		"a flag with its dashes":     {"--http: 127.0.0.1:0\n", `(did you mean http?)`},
		"camel case":                 {"sessionLimit: 5\n", `(did you mean session-limit?)`},
		"nothing like it":            {"rtmp: no\n", `weir node --help lists them`},
		"nested":                     {"limits:\n  sessions: 5\n", `:1:1: there is no setting "limits"`},
		"nested below a setting":     {"http:\n  port: 80\n", `:2:3: http wants a text, not settings within it`},
		"itself":                     {"config: other.yaml\n", `:1:1: config cannot stand in the file`},
		"a key twice":                {"linger: 1s\nfanout: 3\nlinger: 2s\n", `:3:1: linger is set already in line 1`},
		"a tab":                      {"listen:\n\t- /ip4/127.0.0.1/tcp/0\n", `:2:1: a tab: YAML indents by spaces only`},
		"a tab after spaces":         {"listen:\n  \t- /ip4/127.0.0.1/tcp/0\n", `:2:3: a tab`},
		"no unit":                    {"linger: 10\n", `:1:9: linger: 10 has no unit: write for example 10s`},
		"a wrong unit":               {"linger: 10 minutes\n", `:1:9: linger: "10 minutes" is not a time with its unit`},
		"a rate in bytes":            {"uplink-limit: 5 MB\n", `:1:15: uplink-limit: bitrate "5 MB": want for example 5mbps`},
		"a word for a number":        {"session-limit: many\n", `:1:16: session-limit: "many" is not a whole number`},
		"half a session":             {"session-limit: 1.5\n", `"1.5" is not a whole number`},
		"octal":                      {"session-limit: 0500\n", `would be read as octal`},
		"a number beyond all bounds": {"session-limit: 99999999999999999999\n", `is not a whole number`},
		"a negative limit":           {"session-limit: -1\n", `:1:16: session-limit: -1: a limit below 0`},
		"yes":                        {"insecure-open: yes\n", `:1:16: insecure-open: "yes" is not true or false`},
		"not a number":               {"cpu-limit: .nan\n", `is not a number`},
		"NaN":                        {"cpu-limit: NaN\n", `is not a number`},
		"out of range":               {"cpu-limit: 80\n", `:1:12: cpu-limit: 80: want a share from 0 to 1`},
		"a list for one value":       {"http: [127.0.0.1:0, 127.0.0.1:1]\n", `:1:7: http wants one value, not a list`},
		"a list within a list":       {"bootstrap:\n  - [a]\n", `:2:5: bootstrap wants a list of plain values`},
		"an empty list":              {"bootstrap: []\n", `:1:12: bootstrap: the list is empty`},
		"no value":                   {"http:\nlinger: 1s\n", `http has no value: give a text, or take the line out`},
		"an empty value":             {"region: \"\"\n", `:1:9: region is empty`},
		"a value of two lines":       {"region: |\n  eu\n  west\n", `region has several lines`},
		"an alias":                   {"region: &r eu\nzone: *r\n", `:1:9: anchors and aliases are not taken here`},
		"an alias bomb":              {"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\nbootstrap: [*c,*c,*c,*c]\n", `:4:13: anchors and aliases are not taken here`},
		"an alias to nowhere":        {"zone: *r\n", `write the value out`},
		"merging":                    {"<<: {region: eu}\n", `:1:1: merging is not taken here`},
		"a tag":                      {"session-limit: !!str 5\n", `:1:16: tags are not taken here`},
		"a foreign tag":              {"region: !ENV REGION\n", `tags are not taken here`},
		"a key that is a list":       {"[a, b]: c\n", `:1:1: want the name of a setting`},
		"a list":                     {"- http\n", `:1:1: want lines such as session-limit: 500, not a list`},
		"no space":                   {"http:127.0.0.1\n", `with a space after the colon`},
		"an open quote":              {"region: 'eu\n", `:1:12: not YAML: found unexpected end of stream`},
		"an open bracket":            {"bootstrap: [a,\n", `:1:15: not YAML`},
		"an indented key":            {"region: eu\n zone: a\n", `:2:6: not YAML: mapping values are not allowed in this context: put a text that has a colon`},
		"a reserved character":       {"operator: @me\n", `:1:11: not YAML: found character that cannot start any token: put a text that begins with @`},
		"two documents":              {"region: eu\n---\nzone: a\n", `:2:1: a second document begins`},
		"bytes that are not UTF-8":   {"region: eu\nzone: M\xfcnchen\n", `:2:8: the byte 0xfc is not UTF-8`},
		"UTF-16":                     {"\xff\xfer\x00", `:1:1: it is UTF-16: save it as UTF-8`},
		"a NUL":                      {"region: e\x00u\n", `:1:10: the character U+0000 cannot be seen`},
		"an escape sequence":         {"region: \x1b[2Jeu\n", `:1:9: the character U+001B`},
		"too long":                   {strings.Repeat("# nothing\n", config.MaxFile/10+1), `weir.yaml: it has more than 65536 bytes`},
		"another file altogether":    {strings.Repeat("x: 1\n", 10_000), `weir.yaml:50:1: so many mistakes`},
		"too deep":                   {"bootstrap: " + strings.Repeat("[", 20_000), `weir.yaml:1:`},
		"a value that has a colon":   {"name: a: b\n", `:1:8: not YAML: mapping values are not allowed`},
		"flags in conflict":          {"policy: builtin.yaml\n", `:1:9: policy: open builtin.yaml: no such file`},
		"a word that is none":        {"region: eu\noverflow: spill\n", `:2:11: overflow: overflow "spill"`},
		"what only flags allow":      {"http: 0.0.0.0:8080\n", `:1:7: http: 0.0.0.0:8080 can be reached from other machines`},
		"the second of a list":       {"trusted-proxy: [10.0.0.0/8, nowhere]\n", `:1:29: trusted-proxy: "nowhere"`},
		"no port":                    {"metrics: localhost\n", `:1:10: metrics: localhost: want HOST:PORT`},
		"a peer that has no ID":      {"bootstrap:\n  - /ip4/127.0.0.1/tcp/4001\n", `:2:5: bootstrap: `},
	} {
		s := Sources{File: "weir.yaml", Text: []byte(c.text), Args: []string{"--data-dir", t.TempDir()}}
		_, err := s.Load()
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v\nwant a word of %q", name, err, c.says)
		}
	}
}

// All mistakes are reported at once, those in the YAML's structure and those
// found only by the node's own checks, and none that only follows from another.
func TestAllMistakesAreTold(t *testing.T) {
	const text = `sesion-limit: 4
uplink-limit: fast
cpu-limit: 2
provision-region: [eu]
provision-url: ftp://x
overflow: spill
linger: 3
region: eu
`
	_, err := Sources{File: "weir.yaml", Text: []byte(text)}.Load()
	var places []string
	for _, f := range FaultsOf("", err).Faults {
		places = append(places, strings.SplitN(f.Message, ":", 2)[0])
		if f.Line == 0 || f.Column == 0 {
			t.Errorf("%+v has no place", f)
		}
	}
	want := []string{`there is no setting "sesion-limit" (did you mean session-limit?)`, "uplink-limit", "cpu-limit", "provision-url", "overflow", "linger"}
	if !slices.Equal(places, want) {
		t.Errorf("mistakes in %q\nwant %q", places, want)
	}
	shown := err.Error()
	if !strings.Contains(shown, "\n    linger: 3\n            ^") {
		t.Errorf("no caret below what is wrong:\n%s", shown)
	}
}

// Files are read as editors on other systems write them: byte order mark, line
// ends.
func TestConfigFileAsEditorsWriteIt(t *testing.T) {
	for name, text := range map[string]string{
		"a byte order mark": "\ufeffregion: eu\nsession-limit: 7\n",
		"CRLF":              "region: eu\r\nsession-limit: 7\r\n",
		"no end of line":    "region: eu\nsession-limit: 7",
		"tabs elsewhere":    "region:\teu\t# a comment\t\nsession-limit: 7\n\t\n",
		"as JSON":           `{"region": "eu", "session-limit": 7}`,
		"quotes":            "'region': \"eu\"\nsession-limit: '7'\n",
		"one document":      "---\nregion: eu\nsession-limit: 7\n...\n",
	} {
		l, err := Sources{File: "weir.yaml", Text: []byte(text)}.Load()
		if err != nil || l.cfg.region != "eu" || l.cfg.live.limits.Sessions != 7 {
			t.Errorf("%s: %v, %q, %d", name, err, l.cfg.region, l.cfg.live.limits.Sessions)
		}
	}
	for name, text := range map[string]string{"nothing": "", "a comment": "# later\n", "a bare document": "---\n", "a tilde": "~\n"} {
		if l, err := (Sources{File: "weir.yaml", Text: []byte(text)}).Load(); err != nil || l.cfg.live.limits.Sessions != 500 {
			t.Errorf("%s: %v, %d", name, err, l.cfg.live.limits.Sessions)
		}
	}
}

// A value stays text: YAML's types of no, off and 8080 do not apply.
func TestConfigValuesAreTexts(t *testing.T) {
	l, err := Sources{File: "weir.yaml", Text: []byte("region: no\nconsole: off\nmedia-port: 8082\nzone: 010\nname: 2026-01-02\npacket-limit: 1_000\nlisten: /ip4/127.0.0.1/tcp/0\n")}.Load()
	if err != nil {
		t.Fatal(err)
	}
	c := l.cfg
	if c.region != "no" || c.console != console.Off || c.media != "127.0.0.1:8082" || c.zone != "010" || c.name != "2026-01-02" || c.live.limits.Packets != 1000 || len(c.listen) != 1 {
		t.Errorf("got %q %q %q %q %q %d %v", c.region, c.console, c.media, c.zone, c.name, c.live.limits.Packets, c.listen)
	}
}

func TestConfigFileThatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for path, says := range map[string]string{
		dir:                          "it is a directory",
		filepath.Join(dir, "absent"): "there is no such file; weir config example prints one",
		"/dev/zero":                  "it is no regular file",
	} {
		_, err := Sources{Args: []string{"--config", path}}.Load()
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v; want %q", path, err, says)
		}
	}
}

// Secrets are never shown, neither as a setting nor in an error.
func TestSecretsAreHidden(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"provision-url", "https://me:s3cret@hooks.example.org/start?key=s3cret", "https://…@hooks.example.org/start?…"},
		{"provision-url", "https://hooks.example.org/start", "https://hooks.example.org/start"},
		{"provision-url", "://s3cret@", "(hidden: it is no URL)"},
		{"provision-command", "TOKEN=s3cret start.sh", "(and 21 characters)"},
		{"provision-command", "/opt/start.sh --token s3cret", "/opt/start.sh (and 14 characters)"},
		{"provision-command", "/opt/start.sh", "/opt/start.sh"},
		{"join", "s3cret", "(a token of 6 characters)"},
		{"region", "eu", "eu"},
	} {
		if got := config.Shown(c.name, c.value); got != c.want {
			t.Errorf("%s: %s is shown as %q, want %q", c.name, c.value, got, c.want)
		}
	}
	for _, text := range []string{
		"provision-url: ftp://me:s3cret@example.org\n",
		"provision-urll: http://me:s3cret@example.org\n",
		"provision-url: [http://me:s3cret@example.org]\n",
		"provision-url: http://example.org/?token=s3cret\nregion: [\n",
	} {
		_, err := Sources{File: "weir.yaml", Text: []byte(text)}.Load()
		if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(FaultsOf("", err).Line(), "s3cret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Reading any file ends, and every mistake has a place in it.
func FuzzConfigFile(f *testing.F) {
	for _, text := range []string{
		"", "session-limit: 5\n", config.Example(Command().Flags, LiveSettings)[:700], "listen:\n\t- x\n", "a: &a [*a]\n", "<<: *x\n", "\ufeffhttp: x\r\n", "region: |\n  a\n b\n", "{a: [b, {c: d}]}",
		"? [a]\n: b\n", "!!binary x: y\n", "linger: 10\nlinger: 10s\n", "bootstrap: [a, b\n", "%YAML 1.1\n---\n...\n---\n", "name: \"\\ud800\"\n", "name: 'x", "\xff", "a\x00", "\r0",
	} {
		f.Add([]byte(text))
	}
	known := Command().Flags
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := config.Parse("fuzz.yaml", text, known)
		if err == nil {
			for _, e := range entries {
				if e.Line < 1 || e.Column < 1 || len(e.Values) == 0 || !slices.ContainsFunc(known, func(f cli.Flag) bool { return f.Names()[0] == e.Name }) {
					t.Errorf("%+v", e)
				}
			}
			return
		}
		lines := strings.Count(config.LineBreaks.Replace(string(text)), "\n") + 1
		for _, fault := range FaultsOf("", err).Faults {
			if fault.Line > lines || fault.Line > 0 && fault.Column < 1 || fault.Message == "" {
				t.Errorf("%+v in %d lines", fault, lines)
			}
		}
		if s := err.Error(); !utf8.ValidString(s) {
			t.Errorf("%q", s)
		}
	})
}
