<%@ page contentType="text/plain; charset=UTF-8" %><%
  // What Tomcat's own login does: the session gets a new id, so that an id planted earlier is worthless.
  request.getSession();
  request.changeSessionId();
  response.setHeader("x-session-patch", "{\"user\":\"alice\"}");
  response.sendRedirect(request.getContextPath() + "/");
%>
