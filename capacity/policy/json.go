package policy

import (
	"encoding/json"

	"weir/capacity"
)

// policyFields is a Policy without its methods.
type policyFields Policy

type policyJSON struct {
	policyFields
	Grace float64 `json:"grace_ms"`
}

// MarshalJSON writes Grace as grace_ms.
func (p Policy) MarshalJSON() ([]byte, error) {
	return json.Marshal(policyJSON{policyFields(p), capacity.Milliseconds(p.Grace)})
}

// UnmarshalJSON decodes the output of MarshalJSON.
func (p *Policy) UnmarshalJSON(b []byte) error {
	var j policyJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	grace, err := capacity.FromMilliseconds("grace_ms", j.Grace)
	if err != nil {
		return err
	}
	*p = Policy(j.policyFields)
	p.Grace = grace
	return nil
}
