package show

import (
	"strings"
	"testing"
	"time"

	"weir/dht/scale"
)

func TestProvisioningInWords(t *testing.T) {
	now := time.Now()
	if line := provisionLine(scale.Status{LastRun: now.Add(-time.Minute), Failures: 5, Last: "exit status 1"}, now); !strings.Contains(line, "5 failures in a row: exit status 1") {
		t.Error(line)
	}
}
