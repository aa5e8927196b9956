package capacity

// RejectsNew returns the rule by which need would be refused even by a server
// that has just been started in region, like our own but without any limit, or
// "": then one that is started may help.
func (j *Judge) RejectsNew(need Need, me Record, region string) (rule string) {
	r := me
	r.Node, r.State, r.Region, r.Carries, r.Coordinate = "new", Active, region, nil, nil
	r.Uplink, r.Downlink, r.Packets, r.Sessions, r.Streams = Usage{}, Usage{}, Usage{}, Usage{}, Usage{}
	r.Reserved, r.CPU, r.CPULimit = 0, 0, 0
	for _, v := range j.Rank(need, me, []Candidate{{Record: r, Believed: 1}}).Rejected {
		rule = v.Rule
	}
	return rule
}
