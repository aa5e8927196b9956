package auth

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"weir/sfu/rights"
)

// Packages below name no flag and no command; the messages for users do.
func TestErrorsAreAdvised(t *testing.T) {
	for _, c := range []struct {
		err  error
		ends string
	}{
		{rights.ErrNoKeySet, "such as weir token key writes"},
		{fmt.Errorf("key 1: %w", rights.ErrPrivateKey), "give nodes the public set that weir token key prints"},
		{rights.ErrNoPrivateKey, "want a file that weir token key made"},
		{rights.ErrTicketSecrets, "; weir token secret makes one"},
	} {
		if got := advised(c.err); !strings.HasSuffix(got.Error(), c.ends) || !errors.Is(got, c.err) {
			t.Errorf("%v becomes %v", c.err, got)
		}
	}
	other := errors.New("something else")
	if got := advised(other); got != other {
		t.Errorf("%v becomes %v", other, got)
	}
}
