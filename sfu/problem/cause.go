package problem

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
)

// WithoutURL removes the wrapper of net/http from an error: the URL, with the
// tickets and tokens in it.
func WithoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// Cause returns, in words, why a server was not reached or did not answer.
func Cause(err error) string {
	var (
		dns     *net.DNSError
		timeout net.Error
		header  tls.RecordHeaderError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return "it was interrupted"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no host has the name " + dns.Name
	case errors.As(err, &dns):
		return "the name " + dns.Name + " could not be looked up"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: the connection was refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route leads there"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it did not answer in time"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection without an answer"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "its certificate is not trusted: this machine does not know who signed it"
	case errors.As(err, new(x509.HostnameError)):
		return "its certificate is not trusted: it is another host's"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate is not trusted: it has expired, or is not valid yet by this machine's clock"
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, &invalid):
		return "its certificate is not trusted"
	case errors.As(err, &header), errors.Is(err, http.ErrSchemeMismatch):
		return "it does not speak TLS: try http instead of https"
	}
	return "the connection failed"
}
