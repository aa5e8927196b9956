package policy

import "weir/capacity"

// RejectsNew returns the rule by which even a server just started in region,
// like this node but without any limit, would be rejected for need. "" means
// that starting one may help.
func (j *Compiled) RejectsNew(need capacity.Need, me capacity.Record, region string) (rule string) {
	r := me
	r.Node, r.State, r.Region, r.Carries, r.Coordinate = "new", capacity.Active, region, nil, nil
	r.Uplink, r.Downlink, r.Packets, r.Sessions, r.Streams = capacity.Usage{}, capacity.Usage{}, capacity.Usage{}, capacity.Usage{}, capacity.Usage{}
	r.Reserved, r.CPU, r.CPULimit, r.Delay = 0, 0, 0, 0
	for _, v := range j.Rank(need, me, []Candidate{{Record: r, Trust: 1}}).Rejected {
		rule = v.Rule
	}
	return rule
}
