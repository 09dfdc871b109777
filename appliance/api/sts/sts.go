// Package sts answers the one question of AWS's Security Token Service that clients of
// streams ask: GetCallerIdentity. The Kinesis Producer Library makes its streams' ARNs
// from the answer and does not start without it; people ask it to see whether their key works.
//
// It owns that answer, in the form and query protocol of the service. It hands out no
// credentials: every other operation is refused.
package sts

import (
	"context"
	"encoding/xml"
	"net/url"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/aws"
)

// version is that of the service's only model, and part of the name space of its answers.
const version = "2011-06-15"

// Service serves the operation.
type Service struct{ account string }

var (
	_ api.Handler = (*Service)(nil)
	_ api.Refuser = (*Service)(nil)
)

// New returns the service of a 12-digit account, the one of the streams' ARNs.
func New(account string) *Service { return &Service{account: account} }

type callerIdentity struct {
	XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResponse"`
	ARN       string   `xml:"GetCallerIdentityResult>Arn"`
	UserID    string   `xml:"GetCallerIdentityResult>UserId"`
	Account   string   `xml:"GetCallerIdentityResult>Account"`
	RequestID string   `xml:"ResponseMetadata>RequestId"`
}

type failure struct {
	XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

// Serve answers who the caller is, which anybody with an identity may ask.
// Source: AWS STS API reference, GetCallerIdentity and "Making query requests".
func (s *Service) Serve(_ context.Context, req api.Request, res api.Response) {
	form, err := url.ParseQuery(string(req.Body()))
	if err != nil {
		fail(res, 400, "MalformedQueryString", "The query string contains a syntax error: "+err.Error())
		return
	}
	action, v := form.Get("Action"), form.Get("Version")
	switch {
	case action == "":
		fail(res, 400, "MissingAction", "The request must contain the parameter Action.")
		return
	case action != "GetCallerIdentity" || v != "" && v != version:
		fail(res, 400, "InvalidAction", "Could not find operation "+action+" for version "+v+": this server has GetCallerIdentity of version "+version+" only.")
		return
	}
	who := req.Identity()
	id := who.AccessKeyID
	if id == "" {
		id = who.Name
	}
	answer(res, 200, &callerIdentity{
		ARN: "arn:aws:iam::" + s.account + ":user/" + who.Name, UserID: id, Account: s.account, RequestID: aws.SetRequestIDs(res),
	})
}

// Refuse answers a caller that is not let in.
func (s *Service) Refuse(_ context.Context, _ api.Request, res api.Response, why *api.Refusal) {
	fail(res, why.Status, why.Code, why.Message)
}

func fail(res api.Response, status int, code, message string) {
	answer(res, status, &failure{Type: "Sender", Code: code, Message: message, RequestID: aws.SetRequestIDs(res)})
}

func answer(res api.Response, status int, v any) {
	body, err := xml.Marshal(v)
	if err != nil {
		panic("BUG: an answer of strings can't be written: " + err.Error())
	}
	res.SetStatus(status)
	res.SetHeader("Content-Type", "text/xml")
	*res.Body() = append((*res.Body())[:0], body...)
}
