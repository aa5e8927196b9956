package term

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgressLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := startProgress(&out, true)
		p.Set("%d of 9 ready", 3)
		time.Sleep(2100 * time.Millisecond)
		synctest.Wait()
		if s := out.String(); !strings.HasSuffix(s, "\r\x1b[K3 of 9 ready, 2s") || strings.Contains(s, "\n") {
			t.Errorf("it goes on as %q", s)
		}
		fmt.Fprintln(p, "a line of the log")
		if s := out.String(); !strings.HasSuffix(s, "\r\x1b[Ka line of the log\n\r\x1b[K3 of 9 ready, 2s") {
			t.Errorf("with another line it is %q", s)
		}
		p.Close()
		p.Close()
		p.Set("late")
		if s := out.String(); !strings.HasSuffix(s, "\r\x1b[K") {
			t.Errorf("it ends as %q", s)
		}

		out.Reset()
		p = startProgress(&out, false)
		p.Set("on no terminal")
		fmt.Fprintln(p, "a line")
		p.Close()
		if out.String() != "a line\n" {
			t.Errorf("on no terminal: %q", &out)
		}
	})
}
