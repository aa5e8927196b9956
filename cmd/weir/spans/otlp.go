package spans

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"weir/cmd/weir/build"
	"weir/sfu/problem"
)

// exportAnswer bounds the bytes read of an answer.
const exportAnswer = 64 << 10

// An otlpClient sends spans by OTLP over HTTP, in protobuf (OTLP specification
// 1.9, "OTLP/HTTP"), and keeps the outcome of the last request. It implements
// [go.opentelemetry.io/otel/exporters/otlp/otlptrace.Client] without gRPC,
// which that module's own client links.
type otlpClient struct {
	http      *http.Client
	transport *http.Transport
	endpoint  string
	headers   http.Header

	status atomic.Int32 // 0: there was none
	retry  atomic.Int64 // ns, the collector's Retry-After
}

// newOTLPClient returns a client of endpoint, with the headers that the
// environment gives.
func newOTLPClient(endpoint string) (*otlpClient, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxConnsPerHost, t.MaxResponseHeaderBytes = 2, 16<<10
	c := &otlpClient{transport: t, endpoint: endpoint, headers: http.Header{}, http: &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the header has the key
	}}
	c.headers.Set("User-Agent", "weir/"+build.Release())
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		if err := addHeaders(c.headers, os.Getenv(name)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	c.headers.Set("Content-Type", "application/x-protobuf")
	c.headers.Set("Content-Encoding", "gzip")
	return c, nil
}

// addHeaders reads "name=value,name=value", values escaped as in URLs (OpenTelemetry
// specification, "Protocol Exporter"). Its error repeats no value: they are keys.
func addHeaders(to http.Header, list string) error {
	for _, pair := range strings.Split(list, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		if !ok || !httpguts.ValidHeaderFieldName(name) {
			return errors.New("want name=value, with commas between")
		}
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil || !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("the value of %s is none of a header", name)
		}
		to.Set(name, value)
	}
	return nil
}

// Start implements otlptrace.Client.
func (c *otlpClient) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (c *otlpClient) Stop(context.Context) error {
	c.transport.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client. It sends one request.
func (c *otlpClient) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	c.status.Store(0)
	c.retry.Store(0)
	// The same on the wire as an ExportTraceServiceRequest.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(body); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint, &packed)
	if err != nil {
		return err
	}
	req.Header = c.headers.Clone()
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	c.status.Store(int32(resp.StatusCode))
	if seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16); err == nil {
		c.retry.Store(int64(min(time.Duration(seconds)*time.Second, exportRetryMost)))
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, exportAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("the collector answered %s", resp.Status)
	}
	if resp.Header.Get("Content-Type") == "application/x-protobuf" {
		return partialSuccess(answer)
	}
	return nil
}

// partialSuccess returns an error if an ExportTraceServiceResponse says that
// the collector has rejected some or all of the spans.
func partialSuccess(answer []byte) error {
	partial, err := field(answer, 1, protowire.BytesType)
	if err != nil {
		return err
	}
	rejected, err := field(partial, 1, protowire.VarintType)
	if err != nil {
		return err
	}
	message, err := field(partial, 2, protowire.BytesType)
	if err != nil {
		return err
	}
	n, _ := protowire.ConsumeVarint(rejected)
	if n == 0 && len(message) == 0 {
		return nil
	}
	return fmt.Errorf("the collector has rejected %d spans: %s", n, message)
}

// field returns the message's last field of that number and type: its bytes, or
// the encoded number. Nil: there is none.
func field(message []byte, number protowire.Number, is protowire.Type) (value []byte, err error) {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		m := protowire.ConsumeFieldValue(num, typ, message[n:])
		if m < 0 {
			return nil, protowire.ParseError(m)
		}
		if num == number && typ == is {
			value = message[n : n+m]
			if typ == protowire.BytesType {
				value, _ = protowire.ConsumeBytes(value)
			}
		}
		message = message[n+m:]
	}
	return value, nil
}

// after is the collector's Retry-After.
func (c *otlpClient) after() time.Duration { return time.Duration(c.retry.Load()) }

// refused reports whether the last request must not be retried (OTLP
// specification, "Failures"): it was answered, with a status that is not
// retryable.
func (c *otlpClient) refused() bool {
	switch c.status.Load() {
	case 0, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return true
}

// why describes the failure of the last request, which failed with err.
func (c *otlpClient) why(err error) string {
	switch status := int(c.status.Load()); {
	case status == 0:
		why := problem.Cause(err)
		if u, bad := url.Parse(c.endpoint); bad == nil && u.Port() == "4317" {
			why += " (4317 is the port of OTLP over gRPC by custom; over HTTP it is 4318)"
		}
		return why
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fmt.Sprintf("the collector answered %d %s: give its key by OTEL_EXPORTER_OTLP_HEADERS", status, http.StatusText(status))
	case status >= 200 && status < 300:
		return "the collector took a part of them only, or its answer is none of OTLP"
	default:
		return fmt.Sprintf("the collector answered %d %s", status, http.StatusText(status))
	}
}
