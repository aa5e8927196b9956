package problem

import (
	"maps"
	"slices"
)

// A Code is the stable name of a kind of problem. Programs may branch on it;
// the meaning of a code never changes.
type Code string

// Codes of requests to publish and to view.
const (
	// NotLive: the stream has no publisher. It may begin at any time.
	NotLive Code = "not-live"
	// NameTaken: the stream has a publisher already, here or at Node.
	NameTaken Code = "name-taken"
	// NoCapacity: neither this node nor another one has room, or none may
	// accept the client; Reason names the exhausted resource.
	NoCapacity Code = "no-capacity"
	// OriginUnreachable: the stream is live elsewhere, and no carrier of it can
	// be reached from here.
	OriginUnreachable Code = "origin-unreachable"
	// Orphaned: this node is cut off from the origin of the stream, and looks for
	// another way to it.
	Orphaned Code = "orphaned"
	// HelperUnreachable: another node has room and does not answer.
	HelperUnreachable Code = "helper-unreachable"
	// NotKnown: the responsible nodes did not answer, so it is unknown whether
	// the stream is live, the name is free, or there is room.
	NotKnown Code = "not-known"
	// TooManySetups: as many requests are being set up as the node allows.
	TooManySetups Code = "too-many-setups"
	// TooManyWaiting: as many requests wait as the node allows: of the client,
	// for the stream or in total.
	TooManyWaiting Code = "too-many-waiting"
	// TooManyFromAddress: the client's address has as many sessions as allowed.
	TooManyFromAddress Code = "too-many-from-address"
	// Timeout: setting the session up took too long.
	Timeout Code = "timeout"
	// Closing: the node is closing.
	Closing Code = "closing"

	// BadStreamName: the stream's name is invalid.
	BadStreamName Code = "bad-stream-name"
	// BadWait: the query's wait is no duration, or too long.
	BadWait Code = "bad-wait"
	// BadSDP: the body is not an SDP offer, or one that is out of bounds.
	BadSDP Code = "bad-sdp"
	// BadFragment: the body is not an SDP fragment of trickle ICE.
	BadFragment Code = "bad-fragment"
	// NoCommonCodec: the client supports no codec that can be forwarded to or
	// from it.
	NoCommonCodec Code = "no-common-codec"
	// BadTicket: the ticket in the URL is forged, has expired, has been used, or
	// is for something else.
	BadTicket Code = "bad-ticket"
	// Unauthorized: the client has no token, or a rejected one; Reason says
	// which.
	Unauthorized Code = "unauthorized"
	// Forbidden: the client's right does not cover the request.
	Forbidden Code = "forbidden"
	// TooManySessions: the client's token has as many sessions as it allows.
	TooManySessions Code = "too-many-sessions"
	// RightsUnknown: the client's right could not be determined.
	RightsUnknown Code = "rights-unknown"
	// UnusableOffer: the offer is well-formed, but media would flow for a part
	// of it at most: its sections are not in one BUNDLE group, or its client is
	// ICE-lite.
	UnusableOffer Code = "unusable-offer"
	// NoSession: the session has never existed here.
	NoSession Code = "no-session"
	// SessionEnded: the session is over.
	SessionEnded Code = "session-ended"
	// TooManyChanges: the session's media have been chosen more often than allowed.
	TooManyChanges Code = "too-many-changes"
	// OldSession: If-Match names an ICE session that is over.
	OldSession Code = "old-ice-session"
)

// Codes of requests of any kind.
const (
	// BadMediaType: the Content-Type is not the accepted one.
	BadMediaType Code = "bad-media-type"
	// BadBody: the body is incomplete or malformed.
	BadBody Code = "bad-body"
	// TooLarge: the body is too long.
	TooLarge Code = "too-large"
	// BadParameter: a part of the path or of the query is wrong.
	BadParameter Code = "bad-parameter"
	// BadMethod: the method is not served at this path.
	BadMethod Code = "bad-method"
	// NotFound: there is nothing of that name.
	NotFound Code = "not-found"
	// UntrustedProxy: the connection began with a PROXY header, and came from
	// no trusted proxy, or the node accepts no such headers.
	UntrustedProxy Code = "untrusted-proxy"
	// BadProxyHeader: a trusted proxy sent no PROXY header where one is
	// required, or a malformed one.
	BadProxyHeader Code = "bad-proxy-header"
	// HTTPSRequired: a token was sent to the unencrypted port.
	HTTPSRequired Code = "https-required"
	// Internal: a fault of the node. Its log has more, under Request.
	Internal Code = "internal"
)

// Codes of the admin API, and of /healthz and /readyz.
const (
	// BadHost: the admin API was addressed by a host name.
	BadHost Code = "bad-host"
	// BadOrigin: the request comes from a page of another site.
	BadOrigin Code = "bad-origin"
	// BadPolicy: the policy does not parse, or is not signed by the operator.
	BadPolicy Code = "bad-policy"
	// BadConfig: the configuration has mistakes, and no part of it is applied.
	BadConfig Code = "bad-config"
	// OldPolicy: the node holds a policy that is as new or newer.
	OldPolicy Code = "old-policy"
	// NoAnswer: the nodes asked did not answer.
	NoAnswer Code = "no-answer"
	// NotReady: the node has not joined its network yet.
	NotReady Code = "not-ready"
	// Draining: the node accepts no new sessions.
	Draining Code = "draining"
	// Stuck: a part of the node does not respond: the node has to be restarted.
	Stuck Code = "stuck"
	// NotLocal: only clients on this machine may see it.
	NotLocal Code = "not-local"
	// TooManyEventStreams: as many are open as allowed, in total or from one
	// address.
	TooManyEventStreams Code = "too-many-event-streams"
)

// kinds are the statuses and titles of all codes. A test checks that it is
// complete.
var kinds = map[Code]struct {
	status int
	title  string
}{
	// 409 and not 404: clients give up on 404, and the stream may still begin.
	NotLive:           {409, "The stream is not live"},
	NameTaken:         {409, "The name is taken"},
	NoCapacity:        {503, "There is no room"},
	OriginUnreachable: {503, "The stream's origin cannot be reached"},
	Orphaned:          {503, "The stream has lost its origin"},
	HelperUnreachable: {503, "The node with room cannot be reached"},
	NotKnown:          {503, "It is not known yet"},
	TooManySetups:     {503, "Too many requests are being set up"},
	TooManyWaiting:    {503, "Too many requests wait"},
	Timeout:           {503, "It took too long"},
	Closing:           {503, "The node is ending"},

	BadStreamName: {400, "The stream's name is not valid"},
	BadWait:       {400, "The wait is not valid"},
	BadSDP:        {400, "The SDP is not valid"},
	BadFragment:   {400, "The SDP fragment is not valid"},
	NoCommonCodec: {406, "No codec in common"},
	BadTicket:     {403, "The ticket is not valid"},
	UnusableOffer: {422, "Unusable offer"},

	Unauthorized:       {401, "A token is needed"},
	Forbidden:          {403, "The right is for something else"},
	TooManyFromAddress: {429, "Too many sessions from one address"},
	TooManySessions:    {429, "Too many sessions of one token"},
	RightsUnknown:      {503, "Rights cannot be checked now"},

	NoSession:      {404, "There is no such session"},
	SessionEnded:   {404, "The session has ended"},
	TooManyChanges: {429, "Too many changes"},
	OldSession:     {412, "The ICE session is over"},

	BadMediaType: {415, "The media type is not supported"},
	BadBody:      {400, "The body is not valid"},
	TooLarge:     {413, "The body is too long"},
	BadParameter: {400, "A parameter is not valid"},
	BadMethod:    {405, "The method is not allowed"},
	NotFound:     {404, "Not found"},
	Internal:     {500, "Internal error"},

	HTTPSRequired: {403, "https is required"},

	UntrustedProxy: {403, "The proxy is not trusted"},
	BadProxyHeader: {400, "The PROXY header is not valid"},

	BadHost:   {403, "The host is not allowed"},
	BadOrigin: {403, "The origin is not allowed"},
	BadPolicy: {400, "The policy is not valid"},
	BadConfig: {400, "The configuration is not valid"},
	OldPolicy: {409, "The policy is not new"},
	NoAnswer:  {503, "No answer"},
	NotReady:  {503, "The node is not ready"},
	Draining:  {503, "The node is draining"},
	Stuck:     {503, "The node is stuck"},
	NotLocal:  {403, "Not from here"},

	TooManyEventStreams: {429, "Too many event streams"},
}

// Codes returns all codes, sorted.
func Codes() []Code { return slices.Sorted(maps.Keys(kinds)) }
