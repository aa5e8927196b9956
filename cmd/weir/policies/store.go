package policies

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/durable"
	"weir/capacity/event"
	"weir/capacity/signed"
	"weir/cmd/weir/api"
	"weir/cmd/weir/doctor"
	"weir/dht/inspect"
)

// policiesKept is how many signed policies a node keeps, for weir policy
// history.
const policiesKept = 32

// Dir is the directory of these policies, below the data directory.
const Dir = "policies"

// A Store keeps the policies that the network's operator has signed, each
// in a file named for its version, and puts the newest in force.
type Store struct {
	Dir      string
	Operator peer.ID
	Policy   *File
	Log      *slog.Logger
}

// Apply stores a policy and puts it in force. Sessions, streams and links are
// not touched.
func (s *Store) Apply(p signed.Policy, sealed []byte) error {
	if err := s.keep(p.Version, sealed); err != nil {
		s.Log.Warn("policy not kept; it is in force until the node ends", "err", err)
	}
	before := s.Policy.Force(p.Compiled)
	s.Policy.tell(event.Event{Kind: event.PolicyApplied, Detail: fmt.Sprintf("%q version %d, after version %d, sum %s, signed by the operator", p.Compiled.Policy().Name, p.Version, before.Version, p.Sum())})
	return nil
}

// keep writes a policy, and deletes the oldest if there are too many.
func (s *Store) keep(version uint64, sealed []byte) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(s.Dir, fmt.Sprintf("%020d.policy", version)), sealed, 0o600); err != nil {
		return err
	}
	files, err := s.files()
	if err != nil {
		return err
	}
	for _, f := range files[:max(0, len(files)-policiesKept)] {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

// files are the files of the stored policies, oldest first.
func (s *Store) files() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var files []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".policy") {
			files = append(files, filepath.Join(s.Dir, e.Name()))
		}
	}
	slices.Sort(files) // the names have leading zeros
	return files, err
}

func EntryOf(p signed.Policy, sealed []byte, inForce bool) api.PolicyVersion {
	return api.PolicyVersion{
		Version: p.Version, Name: p.Compiled.Policy().Name, Issued: p.Issued, Operator: p.Operator, Sum: p.Sum(),
		InForce: inForce, Text: string(p.Text), Sealed: sealed,
	}
}

// History are the stored policies, newest first. Files without a valid policy,
// or with one of another operator, are left out and logged.
func (s *Store) History() ([]api.PolicyVersion, error) {
	files, err := s.files()
	if err != nil {
		return nil, err
	}
	list := []api.PolicyVersion{}
	for _, name := range slices.Backward(files) {
		sealed, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		p, err := signed.OpenPolicy(sealed, s.Operator)
		if err != nil {
			s.Log.Warn("kept policy not used", "file", name, "err", err)
			continue
		}
		list = append(list, EntryOf(p, sealed, p.Version == s.Policy.Policy().Policy().Version))
	}
	return list, nil
}

// unreadable returns the version of the newest stored policy and why it cannot
// be used, or nil. It may use variables of an earlier release.
func (s *Store) unreadable() (version uint64, why error) {
	files, err := s.files()
	if err != nil || len(files) == 0 {
		return 0, err
	}
	newest := files[len(files)-1]
	version, err = strconv.ParseUint(strings.TrimSuffix(filepath.Base(newest), ".policy"), 10, 64)
	if err != nil {
		return 0, err
	}
	sealed, err := os.ReadFile(newest)
	if err == nil {
		_, err = signed.OpenPolicy(sealed, s.Operator)
	}
	return version, err
}

// Check reports whether the newest stored policy is in force.
func (s *Store) Check() doctor.Check {
	now := s.Policy.Policy().Policy()
	c := doctor.Check{Name: "policy", Outcome: inspect.Fine, Seen: fmt.Sprintf("%q version %d is in force", now.Name, now.Version)}
	if version, why := s.unreadable(); why != nil && version > now.Version {
		c.Outcome, c.Do = inspect.Warning, fmt.Sprintf("sign it again in the words that weir policy check accepts: weir policy push --as %d", version+1)
		c.Seen += fmt.Sprintf("; version %d, which the operator signed, cannot be used: %v", version, why)
	}
	return c
}

// Restore puts the newest usable stored policy in force, as it was when the
// node ended. Without one, the built-in policy or that of a file stays.
func (s *Store) Restore(push func(sealed []byte) (signed.Policy, error)) error {
	if version, why := s.unreadable(); why != nil {
		s.Policy.tell(event.Event{Kind: event.PolicyRefused, Detail: fmt.Sprintf("version %d, kept from before: %v", version, why)})
	}
	list, err := s.History()
	if err != nil || len(list) == 0 {
		return err
	}
	_, err = push(list[0].Sealed)
	return err
}
