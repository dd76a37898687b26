package sops

import (
	"errors"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/aws/smithy-go"
	vault "github.com/hashicorp/vault/api"
	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// reason puts the failure of a service into words that are the same each time and show
// nothing that was sent: what libraries say has ids of requests, ports, and sometimes
// whole answers in it.
func reason(err error) string {
	var (
		fromAWS   smithy.APIError
		fromAzure *azcore.ResponseError
		login     *azidentity.AuthenticationFailedError
		fromVault *vault.ResponseError
		token     *oauth2.RetrieveError
		own       *gitops.Error
		atVault   *loginError
		words     said
	)
	switch {
	case errors.As(err, &own):
		return own.Error()
	case errors.As(err, &words):
		return words.Error()
	case errors.As(err, &atVault):
		return atVault.Error()
	case errors.As(err, &fromAWS):
		return "it answers " + fromAWS.ErrorCode()
	case errors.As(err, &login):
		if login.RawResponse != nil {
			return fmt.Sprintf("the login fails with %d", login.RawResponse.StatusCode)
		}
		return "the login fails"
	case errors.As(err, &fromAzure):
		return fmt.Sprintf("it answers %d %s", fromAzure.StatusCode, fromAzure.ErrorCode)
	case errors.As(err, &fromVault):
		return fmt.Sprintf("it answers %d", fromVault.StatusCode)
	case errors.As(err, &token):
		return fmt.Sprintf("the login fails with %s", token.ErrorCode)
	}
	if reason, ok := gitops.NetworkReason(err); ok {
		return reason
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK && s.Code() != codes.Unknown {
		return "it answers " + s.Code().String()
	}
	return "it cannot be asked"
}
